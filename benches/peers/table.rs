//! Table of the measurements.

use super::Seen;

/// Prints one row per server.
pub(crate) fn print<'s>(rows: impl Iterator<Item = (String, &'s Seen)>) {
    println!(
        "| server | CPU/answer median (least to most) | answers/s | lost | lost of bursts | p50 / p99 / p99.9 | memory |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (name, seen) in rows {
        let (cpu, rate, times) = (sorted(&seen.cpu), sorted(&seen.rate), sorted(&seen.times));
        println!(
            "| {name} | {:.2} µs ({:.2} to {:.2}) | {:.0} | {} of {} | {:?} | {:.0} / {:.0} / {:.0} µs | {:.1} MB |",
            at(&cpu, 0.5),
            at(&cpu, 0.0),
            at(&cpu, 1.0),
            at(&rate, 0.5),
            seen.lost.0,
            seen.lost.1,
            seen.burst,
            at(&times, 0.5),
            at(&times, 0.99),
            at(&times, 0.999),
            seen.memory,
        );
    }
}

fn sorted<T: Copy + PartialOrd>(values: &[T]) -> Vec<T> {
    let mut values = values.to_vec();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap());
    values
}

fn at<T: Copy + Into<f64>>(sorted: &[T], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize].into()
}
