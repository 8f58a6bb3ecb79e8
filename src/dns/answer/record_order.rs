//! Order of the records of an RRset.
//!
//! The first positions are drawn by weight, so that clients that use the first record are balanced by weight. RFC 2782 clients
//! weigh SRV records themselves; A and AAAA records have no other way to express weights.

use std::net::IpAddr;

use fastrand::Rng;

/// Positions drawn by weight without replacement; the rest are rotated. Clients that use several records use the first few.
const DRAWN: usize = 16;
/// Ratio of the probabilities of weight 1 and weight 0, which has "a very small chance of being selected" (RFC 2782).
const ZERO_SHARE: u64 = 64;
/// Maximum number of records drawn by summing all weights for each position. Larger RRsets use rejection sampling first, since
/// a sum over thousands of instances would dominate the cost of a query.
const SMALL: usize = 64;
/// Samples per position before falling back to the sum. One or two suffice for similar weights; no number suffices if one
/// weight exceeds all others together.
const TRIES: usize = 8;

/// Fills `order` with the first `most` positions of a random permutation of `0..len`, weighted by `weight`.
pub fn draw(len: usize, most: usize, weight: impl Fn(usize) -> u16, rng: &mut Rng, order: &mut Vec<u32>) {
    let share = |at: u32| u64::from(weight(at as usize)) * ZERO_SHARE + 1;
    let most = most.min(len);
    order.clear();
    if len < 2 {
        order.extend(0..most as u32);
    } else if len <= SMALL {
        draw_small(len, share, rng, order);
        order.truncate(most);
    } else {
        draw_large(len as u32, most, share, rng, order);
    }
}

/// Fills `order` with `most` consecutive positions of `0..len`, starting at one that depends on the client. A client gets the
/// same records in every truncated answer, and different clients get different ones. Clients that ignore TC, such as HAProxy,
/// remove servers that are missing from an answer, and would flap with a random order.
pub fn rotate(len: usize, most: usize, client: Option<IpAddr>, order: &mut Vec<u32>) {
    let bits = client.map_or(0, |client| match client.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    });
    // A fraction of the length, so that adding or removing a record moves the start by one at most.
    let fraction = u64::from(Rng::with_seed((bits >> 64) as u64 ^ bits as u64).u32(..));
    let first = ((fraction * len as u64) >> u32::BITS) as u32;
    order.clear();
    order.extend((first..len as u32).chain(0..first).take(most));
}

fn draw_small(len: usize, share: impl Fn(u32) -> u64, rng: &mut Rng, order: &mut Vec<u32>) {
    order.extend(0..len as u32);
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

fn draw_large(len: u32, most: usize, share: impl Fn(u32) -> u64, rng: &mut Rng, order: &mut Vec<u32>) {
    let heaviest = (0..len).map(&share).max().unwrap_or(1);
    while order.len() < DRAWN.min(most) {
        // Rejection sampling: accepted with the probability of its share relative to the largest.
        let sampled = (0..TRIES).find_map(|_| {
            let at = rng.u32(0..len);
            (rng.u64(0..heaviest) < share(at) && !order.contains(&at)).then_some(at)
        });
        let chosen = sampled.or_else(|| {
            let left = || (0..len).filter(|at| !order.contains(at));
            let mut drawn = rng.u64(0..left().map(&share).sum());
            left().find(|&at| {
                let here = drawn < share(at);
                drawn = drawn.saturating_sub(share(at));
                here
            })
        });
        order.extend(chosen);
    }
    let drawn = order.len();
    let turn = rng.u32(0..len);
    for at in (turn..len).chain(0..turn) {
        if order.len() >= most {
            break;
        }
        if !order[..drawn].contains(&at) {
            order.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firsts(weights: &[u16]) -> Vec<usize> {
        let mut rng = Rng::with_seed(7);
        let (mut order, mut firsts) = (Vec::new(), vec![0; weights.len()]);
        for _ in 0..10_000 {
            draw(weights.len(), 100, |at| weights[at], &mut rng, &mut order);
            firsts[order[0] as usize] += 1;
        }
        firsts
    }

    #[test]
    fn first_position_is_drawn_by_weight() {
        let cases: &[(&[u16], &[usize])] = &[
            (&[10, 10], &[5000, 5000]),
            (&[10, 30], &[2500, 7500]),
            (&[1, 1, 2], &[2500, 2500, 5000]),
            (&[0, 0], &[5000, 5000]),
            (&[65535, 65535], &[5000, 5000]),
        ];
        for (weights, expected) in cases {
            for (got, expected) in firsts(weights).into_iter().zip(*expected) {
                assert!(got.abs_diff(*expected) < 250, "{weights:?}: {got}, expected {expected}");
            }
        }
        // A large RRset: half of the records get half of the draws.
        let many: [(&[u16], usize); 4] = [(&[5; 100], 100), (&[1; 100], 100), (&[65535; 100], 100), (&[0; 100], 100)];
        for (others, expected) in many {
            let got: usize = firsts(others)[..50].iter().sum();
            assert!(got.abs_diff(50 * expected) < 250, "{}: {got}", others[0]);
        }
        let one_of_many = |weight: u16, others: u16| firsts(&[&[weight][..], &[others; 99]].concat())[0];
        for (weight, others, expected) in [(990, 10, 5000), (99, 1, 5000), (65535, 0, 9999), (10, 990, 1), (5, 5, 100)]
        {
            let got = one_of_many(weight, others);
            assert!(got.abs_diff(expected) < 250, "{weight} among 99 of {others}: {got}, expected {expected}");
        }
        let zero = firsts(&[0, 10])[0];
        assert!((1..100).contains(&zero), "weight 0 was first {zero} times in 10,000");
    }

    #[test]
    fn truncated_answer_is_stable_per_client() {
        let mut firsts = std::collections::BTreeSet::new();
        for number in 0..200_u8 {
            let client = Some(IpAddr::from([10, 0, 0, number]));
            let kept = |len: usize| {
                let mut order = Vec::new();
                rotate(len, 20, client, &mut order);
                order
            };
            assert_eq!(kept(100), kept(100));
            let (before, after) = (kept(100), kept(101));
            let same = after.iter().filter(|at| before.contains(at)).count();
            assert!(same >= 19, "{client:?}: {before:?} and {after:?}");
            firsts.insert(before[0]);
        }
        assert!(firsts.len() > 70, "{} of 100 starting positions are used", firsts.len());
    }

    #[test]
    fn every_order_is_a_permutation() {
        let mut rng = Rng::with_seed(7);
        let mut order = Vec::new();
        for len in [0, 1, 2, 15, 16, 17, 18, 64, 65, 1000] {
            for most in [0, 1, 10, 16, 17, 64, 500, 1000] {
                let assert_permutation = |order: &[u32]| {
                    assert_eq!(order.len(), len.min(most));
                    let distinct: std::collections::BTreeSet<u32> = order.iter().copied().collect();
                    assert_eq!(distinct.len(), order.len(), "{most} of {len}");
                    assert!(distinct.iter().all(|at| (*at as usize) < len));
                };
                draw(len, most, |at| at as u16, &mut rng, &mut order);
                assert_permutation(&order);
                rotate(len, most, Some(IpAddr::from([10, 0, 0, 7])), &mut order);
                assert_permutation(&order);
            }
        }
    }
}
