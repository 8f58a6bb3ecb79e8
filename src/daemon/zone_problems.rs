//! Problems of zones, logged once when they begin and once when they end.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

use super::Context;
use crate::{
    clock::unix_now,
    dns::zone::{Tables, static_names::Zone, zone_problems::ZoneProblem},
};

/// Shortest time between two looks at all zones, in which the zones of one reload arrive.
const PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks without a change: signatures end by themselves.
const INTERVAL: Duration = Duration::from_secs(600);

/// Starts to follow the published tables. Returns their problems.
pub(super) fn start(
    context: &mut Context<'_>,
    tables: Arc<ArcSwap<Tables>>,
    published: watch::Receiver<()>,
) -> watch::Receiver<Arc<[ZoneProblem]>> {
    let (problems, shown) = watch::channel(Arc::default());
    let follow = follow(tables, published, problems);
    let shutdown = context.shutdown.clone();
    context.tasks.spawn("problems of zones", async move {
        tokio::select! {
            () = follow => shutdown.cancelled().await,
            () = shutdown.cancelled() => {}
        }
    });
    shown
}

async fn follow(
    tables: Arc<ArcSwap<Tables>>,
    mut published: watch::Receiver<()>,
    problems: watch::Sender<Arc<[ZoneProblem]>>,
) {
    loop {
        sleep(PAUSE).await;
        published.mark_unchanged();
        let zones = tables.load_full();
        let mut now = zones.zone_problems(unix_now(), |zone: &Zone| zone.signer().is_some());
        now.extend(zones.copy_problems());
        let known = problems.borrow().clone();
        for problem in now.iter().filter(|problem| !known.contains(problem)) {
            warn!(zone = %problem.zone(), reason = %problem, hint = problem.hint(), "problem of a zone");
        }
        for problem in known.iter().filter(|problem| !now.contains(problem)) {
            info!(zone = %problem.zone(), former = %problem, "problem of a zone has ended");
        }
        problems.send_if_modified(|shown| {
            let is_changed = **shown != *now;
            *shown = now.into();
            is_changed
        });
        tokio::select! {
            changed = published.changed() => if changed.is_err() { return },
            () = sleep(INTERVAL) => {}
        }
    }
}
