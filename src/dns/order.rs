//! In which order an RRset's records are answered.
//!
//! Clients that take the first record spread by weight (RFC 2782 asks as much of clients that read SRV records; for A
//! and AAAA the order is all that can carry it).

use fastrand::Rng;

/// The places drawn by weight, without replacement; the rest follow in turn. Clients that take several take the first
/// few.
const DRAWN: usize = 16;

/// Fills `order` with a permutation of `0..len`, drawn by `weight`.
///
/// A weight of 0 gets a small chance beside others (RFC 2782 "a very small chance of being selected").
pub fn draw(len: usize, weight: impl Fn(usize) -> u16, rng: &mut Rng, order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..len as u32);
    if len < 2 {
        return;
    }
    let share = |at: u32| u64::from(weight(at as usize)) * ZERO_SHARE + 1;
    let mut total: u64 = order.iter().map(|&at| share(at)).sum();
    for place in 0..DRAWN.min(len - 1) {
        let mut left = rng.u64(0..total);
        let mut chosen = place;
        for (at, &candidate) in order.iter().enumerate().skip(place) {
            let share = share(candidate);
            if left < share {
                chosen = at;
                total -= share;
                break;
            }
            left -= share;
        }
        order.swap(place, chosen);
    }
    if len > DRAWN {
        let rest = &mut order[DRAWN..];
        let turn = rng.usize(0..rest.len());
        rest.rotate_left(turn);
    }
}

/// How many times likelier weight 1 is than weight 0.
const ZERO_SHARE: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts(weights: &[u16]) -> Vec<usize> {
        let mut rng = Rng::with_seed(7);
        let (mut order, mut firsts) = (Vec::new(), vec![0; weights.len()]);
        for _ in 0..10_000 {
            draw(weights.len(), |at| weights[at], &mut rng, &mut order);
            firsts[order[0] as usize] += 1;
        }
        firsts
    }

    #[test]
    fn the_first_place_is_drawn_by_weight() {
        let cases: &[(&[u16], &[usize])] = &[
            (&[10, 10], &[5000, 5000]),
            (&[10, 30], &[2500, 7500]),
            (&[1, 1, 2], &[2500, 2500, 5000]),
            (&[0, 0], &[5000, 5000]),
            (&[65535, 65535], &[5000, 5000]),
        ];
        for (weights, expected) in cases {
            for (got, expected) in firsts(weights).into_iter().zip(*expected) {
                assert!(got.abs_diff(*expected) < 250, "{weights:?}: {got} where {expected} was due");
            }
        }
        let zero = firsts(&[0, 10])[0];
        assert!((1..100).contains(&zero), "weight 0 came first {zero} times in 10,000");
    }

    #[test]
    fn every_order_is_a_permutation() {
        let mut rng = Rng::with_seed(7);
        let mut order = Vec::new();
        for len in [0, 1, 2, 15, 16, 17, 18, 1000] {
            draw(len, |at| at as u16, &mut rng, &mut order);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..len as u32).collect::<Vec<_>>());
        }
    }
}
