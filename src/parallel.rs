//! Work on the items of a slice by several threads, for a start or a reload with many files or instances.

use std::{
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Maximum number of threads. More of them wait for memory.
const MAX_THREADS: usize = 8;

/// Returns the results of `work` in the order of the items. At most `threads` threads run, the caller's included, and at most one
/// for each core. A panic of `work` goes on in the caller.
///
/// Blocks, so that an asynchronous caller must expect it.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = threads.min(cores).min(MAX_THREADS).min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let mut done = thread::scope(|scope| {
        let start = |_| thread::Builder::new().name("muster-work".to_owned()).spawn_scoped(scope, run).ok();
        // Without a thread, the others do its work.
        let others: Vec<_> = (1..threads).filter_map(start).collect();
        let mut done = run();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..1000).collect();
        for threads in [0, 1, 2, 100] {
            let doubled = map(&items, threads, |item| item * 2);
            assert_eq!(doubled, (0..1000).map(|item| item * 2).collect::<Vec<_>>(), "{threads}");
        }
        assert_eq!(map(&[0_usize; 0], 4, |item| *item), [0_usize; 0]);
    }

    #[test]
    fn panic_goes_on_in_the_caller() {
        let items: Vec<usize> = (0..100).collect();
        let work = |item: &usize| assert_ne!(*item, 50);
        assert!(catch_unwind(AssertUnwindSafe(|| map(&items, 4, work))).is_err());
    }
}
