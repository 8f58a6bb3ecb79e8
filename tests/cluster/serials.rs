//! Serials of a node that lost its data: peers hand over the bound that its former run announced.

use muster::{
    gossip::message::Message,
    model::member::{Cause, Reach},
};
use tokio::time::sleep;

use crate::script::{Cluster, Handover, ms};

const ALL: &[&str] = &["a", "b", "c"];

/// Starts a node again that knows its peers' addresses only.
async fn restart(cluster: &mut Cluster, name: &'static str, join: &[&'static str]) {
    cluster.start(name, join).await;
    cluster.settles(ms(5000)).await;
}

#[tokio::test(start_paused = true)]
async fn serials_of_live_peers_that_serve_transfers_are_known() {
    let mut cluster = Cluster::running(ALL).await;
    let known = |serials: &[(&str, u32)]| -> Vec<(String, u32)> {
        serials.iter().map(|(name, serial)| ((*name).to_owned(), *serial)).collect()
    };
    assert_eq!(cluster.zone_serials("a"), []);
    cluster.announce_serial("a", Some(7));
    cluster.announce_serial("c", Some(9));
    cluster.until(ms(1000), "both are known", |c| c.zone_serials("b") == known(&[("a", 7), ("c", 9)])).await;
    cluster.until(ms(1000), "no node knows its own", |c| c.zone_serials("c") == known(&[("a", 7)])).await;
    // Frequent changes are announced at a bounded rate, the last one always.
    for serial in 10..1000 {
        cluster.announce_serial("c", Some(serial));
        sleep(ms(1)).await;
    }
    cluster.until(ms(1000), "the last one is known", |c| c.zone_serials("a") == known(&[("c", 999)])).await;
    cluster.announce_serial("a", None);
    cluster.until(ms(1000), "a serves none", |c| c.zone_serials("b") == known(&[("c", 999)])).await;
    cluster.kill("c").await;
    cluster.until(ms(8000), "c is gone", |c| c.zone_serials("b") == known(&[])).await;
    restart(&mut cluster, "c", &["a"]).await;
    assert_eq!(cluster.zone_serials("b"), []);
}

/// Otherwise the start would be a second primary of the generated zones until it hears of the first.
#[tokio::test(start_paused = true)]
async fn start_that_continues_a_run_knows_the_serials_of_its_peers() {
    let mut cluster = Cluster::running(ALL).await;
    let of_a = [("a".to_owned(), 7)];
    cluster.announce_serial("a", Some(7));
    cluster.until(ms(1000), "it is known", |c| c.zone_serials("b") == of_a).await;
    for incarnation in 1..=2 {
        let known = cluster.snapshot("b").await;
        cluster.hang("b").await;
        cluster.start_from("b", Handover { incarnation, known, continues: true });
        for _ in 0..200 {
            assert_eq!(cluster.zone_serials("b"), of_a, "start {incarnation}");
            sleep(ms(5)).await;
        }
    }
    // The start of a continues its run as well, and announces its serial later than the rest.
    let known = cluster.snapshot("a").await;
    cluster.hang("a").await;
    cluster.start_from("a", Handover { incarnation: 1, known, continues: true });
    cluster.announce_serial("a", Some(8));
    let of_next = [("a".to_owned(), 8)];
    cluster.until(ms(1000), "it is known", |c| c.zone_serials("b") == of_next).await;
    // A peer that serves no transfers any more.
    let known = cluster.snapshot("b").await;
    cluster.hang("b").await;
    cluster.announce_serial("a", None);
    cluster.start_from("b", Handover { incarnation: 3, known, continues: true });
    cluster.until(ms(3000), "a serves none", |c| c.zone_serials("b").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn next_run_is_handed_the_bound_of_the_former_one() {
    let mut cluster = Cluster::running(ALL).await;
    assert_eq!(cluster.former_serial("c"), None);
    // Bounds are announced by push, and by gossip if that is lost.
    cluster.reserve_serials("c", 70_000);
    sleep(ms(1000)).await;
    cluster.network.lose(Some(|message| matches!(message, Message::Push(_))));
    cluster.reserve_serials("c", 140_000);
    sleep(ms(3000)).await;
    cluster.network.lose(None);
    cluster.kill("c").await;
    cluster.until(ms(8000), "c is gone", |c| c.reach("a", "c") == Some(Reach::Gone(Cause::Refused))).await;
    restart(&mut cluster, "c", &["a"]).await;
    cluster.until(ms(2000), "c knows the bound", |c| c.former_serial("c") == Some(140_000)).await;
    // It is for that node only.
    assert_eq!((cluster.former_serial("a"), cluster.former_serial("b")), (None, None));

    // A bound of the run itself is handed over to the next run only.
    cluster.reserve_serials("c", 210_000);
    sleep(ms(1000)).await;
    cluster.cut(&["c"], &["a", "b"]);
    sleep(ms(3000)).await;
    cluster.network.heal();
    cluster.settles(ms(8000)).await;
    assert_eq!(cluster.former_serial("c"), Some(140_000));
    restart_after_stop(&mut cluster, Some(210_000)).await;
}

/// A node that left is handed its bound as well.
async fn restart_after_stop(cluster: &mut Cluster, expected: Option<u32>) {
    cluster.stop("c").await;
    cluster.until(ms(8000), "c has left", |c| c.reach("a", "c") == Some(Reach::Gone(Cause::Left))).await;
    restart(cluster, "c", &["b"]).await;
    cluster.until(ms(2000), "c knows the bound", |c| c.former_serial("c") == expected).await;
}

#[tokio::test(start_paused = true)]
async fn bound_survives_the_restart_of_all_peers_one_after_the_other() {
    let mut cluster = Cluster::running(ALL).await;
    cluster.reserve_serials("c", 70_000);
    sleep(ms(1000)).await;
    cluster.kill("c").await;
    cluster.until(ms(8000), "c is gone", |c| c.reach("a", "c") == Some(Reach::Gone(Cause::Refused))).await;
    for name in ["a", "b"] {
        let known = cluster.snapshot(name).await;
        cluster.kill(name).await;
        cluster.start_from(name, Handover { known, ..Handover::default() });
        cluster.until(ms(8000), "it is back", |c| c.is_synced(name)).await;
    }
    restart_lossy(&mut cluster).await;
}

/// The message at the introduction is lost: the bound that the run announces shows that it lacks the former one.
async fn restart_lossy(cluster: &mut Cluster) {
    cluster.network.lose(Some(|message| matches!(message, Message::Serial(_))));
    restart(cluster, "c", &["a"]).await;
    assert_eq!(cluster.former_serial("c"), None);
    cluster.network.lose(None);
    cluster.reserve_serials("c", 9);
    cluster.until(ms(3000), "c knows the bound", |c| c.former_serial("c") == Some(70_000)).await;
}
