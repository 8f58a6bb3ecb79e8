//! What this process uses, as the kernel tells it (proc(5)).

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeValLike,
};

use super::Process;

/// When this process first looked at it: its start, for those who have [`read`] called there.
static BEGAN: LazyLock<Duration> = LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());

/// What is used now; `None` where the kernel does not tell.
pub fn read() -> Option<Process> {
    let began = *BEGAN;
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(Process {
        cpu: Duration::from_micros(u64::try_from(cpu).ok()?),
        resident: number(&status, "VmRSS:")? * 1024,
        virtual_memory: number(&status, "VmSize:")? * 1024,
        // One is the folder itself, as it is read.
        open_files: (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
        most_files: getrlimit(Resource::RLIMIT_NOFILE).ok()?.0,
        threads: number(&status, "Threads:")?,
        began,
    })
}

/// The number of a line of /proc/self/status.
fn number(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_is_used() {
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
