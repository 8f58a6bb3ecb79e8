//! Resource usage of this process, from getrusage(2) and proc(5).

use std::{fs, sync::LazyLock, time::Duration};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeValLike,
};

use super::Process;
use crate::clock::unix_now;

/// Time of the first call of [`read`]: the start of the process, since `daemon` calls it there.
static BEGAN: LazyLock<Duration> = LazyLock::new(unix_now);

/// Returns the current usage; `None` if the kernel does not provide it.
pub fn read() -> Option<Process> {
    let began = *BEGAN;
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(Process {
        cpu: Duration::from_micros(u64::try_from(cpu).ok()?),
        resident: number(&status, "VmRSS:")? * 1024,
        virtual_memory: number(&status, "VmSize:")? * 1024,
        // One descriptor is that of the folder being read.
        open_files: (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
        most_files: getrlimit(Resource::RLIMIT_NOFILE).ok()?.0,
        threads: number(&status, "Threads:")?,
        began,
    })
}

/// Returns the number in a line of /proc/self/status.
fn number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_reflects_memory_and_open_files() {
        let before = read().unwrap();
        let kept = vec![1_u8; 64 << 20];
        let file = fs::File::open("/proc/self/status").unwrap();
        let after = read().unwrap();
        assert!(after.resident >= kept.len() as u64, "{after:?}");
        assert!(after.virtual_memory >= after.resident && after.open_files <= after.most_files, "{after:?}");
        assert!(after.cpu >= before.cpu && after.threads >= 1 && after.began == before.began);
        assert!(after.open_files >= 4, "{after:?}: stdin, stdout, stderr and {file:?}");
    }
}
