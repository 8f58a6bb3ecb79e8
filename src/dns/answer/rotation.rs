//! In which order an RRset's records are answered.
//!
//! Clients that take the first record spread by weight (RFC 2782 asks as much of clients that read SRV records; for A
//! and AAAA the order is all that can carry it).

use std::net::IpAddr;

use fastrand::Rng;

/// The places drawn by weight, without replacement; the rest follow in turn. Clients that take several take the first
/// few.
const DRAWN: usize = 16;
/// How many times likelier weight 1 is than weight 0: "a very small chance of being selected" (RFC 2782).
const ZERO_SHARE: u64 = 64;
/// So many records are added up for each place. Of more, some are tried at random first: a service of thousands of
/// instances must not take the time of thousands of others.
const FEW: usize = 64;
/// How many are tried for a place. Where weights are alike one or two do; where one outweighs all others together, no
/// number does.
const TRIES: usize = 8;

/// Fills `order` with the first `most` places of a permutation of `0..len`, drawn by `weight`.
pub fn draw(len: usize, most: usize, weight: impl Fn(usize) -> u16, rng: &mut Rng, order: &mut Vec<u32>) {
    let share = |at: u32| u64::from(weight(at as usize)) * ZERO_SHARE + 1;
    let most = most.min(len);
    order.clear();
    if len < 2 {
        order.extend(0..most as u32);
    } else if len <= FEW {
        draw_of_few(len, share, rng, order);
        order.truncate(most);
    } else {
        draw_of_many(len as u32, most, share, rng, order);
    }
}

/// Fills `order` with `most` places of `0..len` in turn, from one on that is this client's own: of an answer that is cut it
/// gets the same records each time, and others get others. Who passes over TC, as HAProxy does, takes for gone what is not
/// in the answer; drawn ones would come and go with every question.
pub fn stay(len: usize, most: usize, client: Option<IpAddr>, order: &mut Vec<u32>) {
    let bits = client.map_or(0, |client| match client.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    });
    // A part of the whole, so that one record more or less moves the place by one at most.
    let part = u64::from(Rng::with_seed((bits >> 64) as u64 ^ bits as u64).u32(..));
    let first = ((part * len as u64) >> u32::BITS) as u32;
    order.clear();
    order.extend((first..len as u32).chain(0..first).take(most));
}

fn draw_of_few(len: usize, share: impl Fn(u32) -> u64, rng: &mut Rng, order: &mut Vec<u32>) {
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

fn draw_of_many(len: u32, most: usize, share: impl Fn(u32) -> u64, rng: &mut Rng, order: &mut Vec<u32>) {
    let heaviest = (0..len).map(&share).max().unwrap_or(1);
    while order.len() < DRAWN.min(most) {
        // Taken as often as its share is of the heaviest's: drawn by weight, whatever the others weigh.
        let tried = (0..TRIES).find_map(|_| {
            let at = rng.u32(0..len);
            (rng.u64(0..heaviest) < share(at) && !order.contains(&at)).then_some(at)
        });
        let chosen = tried.or_else(|| {
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
        // Of many, what some share is drawn as often as theirs is of all.
        let many: [(&[u16], usize); 4] = [(&[5; 100], 100), (&[1; 100], 100), (&[65535; 100], 100), (&[0; 100], 100)];
        for (others, expected) in many {
            let got: usize = firsts(others)[..50].iter().sum();
            assert!(got.abs_diff(50 * expected) < 250, "{}: {got}", others[0]);
        }
        let one_of_many = |weight: u16, others: u16| firsts(&[&[weight][..], &[others; 99]].concat())[0];
        for (weight, others, expected) in [(990, 10, 5000), (99, 1, 5000), (65535, 0, 9999), (10, 990, 1), (5, 5, 100)]
        {
            let got = one_of_many(weight, others);
            assert!(got.abs_diff(expected) < 250, "{weight} among 99 of {others}: {got} where {expected} was due");
        }
        let zero = firsts(&[0, 10])[0];
        assert!((1..100).contains(&zero), "weight 0 came first {zero} times in 10,000");
    }

    #[test]
    fn what_a_client_gets_of_a_cut_answer_stays() {
        let mut firsts = std::collections::BTreeSet::new();
        for number in 0..200_u8 {
            let client = Some(IpAddr::from([10, 0, 0, number]));
            let kept = |len: usize| {
                let mut order = Vec::new();
                stay(len, 20, client, &mut order);
                order
            };
            assert_eq!(kept(100), kept(100));
            let (before, after) = (kept(100), kept(101));
            let same = after.iter().filter(|at| before.contains(at)).count();
            assert!(same >= 19, "{client:?}: {before:?} and {after:?}");
            firsts.insert(before[0]);
        }
        assert!(firsts.len() > 70, "clients begin at {} of 100 places", firsts.len());
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
                stay(len, most, Some(IpAddr::from([10, 0, 0, 7])), &mut order);
                assert_permutation(&order);
            }
        }
    }
}
