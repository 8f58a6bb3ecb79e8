//! Checks of a node as a whole: their results and the states of its instances on all other nodes.

use muster::model::{announcement::InstanceState, health::Status};

use crate::{
    restarts::until_answering,
    script::{Cluster, Handover, ms},
};

const ALL: &[&str] = &["a", "b", "c"];

#[tokio::test(start_paused = true)]
async fn critical_check_of_a_node_withholds_all_its_instances_on_all_nodes() {
    let mut cluster = Cluster::running(ALL).await;
    for id in ["b2", "b3"] {
        cluster.announce("b", "web", id, InstanceState::Passing);
    }
    cluster.settles(ms(300)).await;
    let (all, others) = ("a b b2 b3 c", "a c");
    for round in 0..3 {
        let output = format!("{round} bytes left");
        cluster.check_node("b", Status::Critical, &output);
        let known = |c: &Cluster, report: &str| ALL.iter().all(|by| c.checks_of(by, "b") == [report]);
        let critical = format!("Disk critical: {output}");
        // The instances and the result of the check are one change: no node answers some of them.
        let is_held = |c: &Cluster| {
            let held: Vec<bool> = ALL.iter().map(|by| c.answer(by, "web") == others).collect();
            for (by, held) in ALL.iter().zip(&held) {
                assert_eq!(c.checks_of(by, "b") == [critical.as_str()], *held, "{by}\n{}", c.show());
            }
            held.iter().all(|held| *held)
        };
        until_answering(&cluster, ms(300), ALL, &[all, others], "b is held", is_held).await;

        // A restart of the node changes no answer.
        let known_peers = cluster.snapshot("b").await;
        cluster.announce_restart("b").await;
        cluster.kill("b").await;
        cluster.stays(ms(1000), &["a", "c"], others).await;
        cluster.start_from("b", Handover { known: known_peers, ..Handover::default() });
        let back = |c: &Cluster| c.is_synced("b") && known(c, &critical);
        until_answering(&cluster, ms(2000), &["a", "c"], &[others], "b is back", back).await;
        cluster.stays(ms(3000), ALL, others).await;

        cluster.check_node("b", Status::Passing, "");
        let is_back =
            |c: &Cluster| c.answer("a", "web") == all && c.answer("c", "web") == all && known(c, "Disk passing: ");
        until_answering(&cluster, ms(300), ALL, &[all, others], "b is answered", is_back).await;
        cluster.stays(ms(1000), ALL, all).await;
    }
}

/// Gossip delivers what pushes do not.
#[tokio::test(start_paused = true)]
async fn lost_pushes_delay_a_check_of_a_node_and_split_nothing() {
    let cluster = Cluster::running(ALL).await;
    cluster.announce("b", "web", "b2", InstanceState::Passing);
    cluster.settles(ms(300)).await;
    cluster.network.lose(Some(|message| matches!(message, muster::gossip::message::Message::Push(_))));
    for (status, from, to) in [(Status::Critical, "a b b2 c", "a c"), (Status::Passing, "a c", "a b b2 c")] {
        cluster.check_node("b", status, "full");
        let settled = |c: &Cluster| ALL.iter().all(|by| c.answer(by, "web") == to);
        until_answering(&cluster, ms(2000), ALL, &[from, to], "the change has arrived", settled).await;
    }
}
