//! Cluster whose first two hosts run systemd and the packaged agent.

use std::sync::{Mutex, OnceLock};

use crate::{
    scene::{Scene, own_service},
    support::{
        booted::{self, Booted},
        cluster::{GOSSIP, Host, SERVICE, Setup, address},
        observer::Observer,
        packages::Packages,
        skip,
        wait::until,
    },
};

/// Versions of the package, from low to high.
pub(crate) const VERSIONS: [&str; 2] = ["1.0.0-1", "1.1.0-1"];

/// Reports whether the test can build packages and boot hosts; if not, skips it.
pub(crate) fn can_run(test: &str) -> bool {
    booted::can_boot(test)
        && skip::tool(test, "objcopy", "binutils")
        && skip::tool(test, "dpkg-deb", "dpkg")
        && skip::crate_tool(test, "cargo-deb")
}

/// Returns the package of one of [`VERSIONS`].
pub(crate) fn package(version: usize) -> &'static [u8] {
    static PACKAGES: [OnceLock<Vec<u8>>; 2] = [const { OnceLock::new() }; 2];
    // They are built in the same folder.
    static BUILD: Mutex<()> = Mutex::new(());
    PACKAGES[version].get_or_init(|| {
        let _one_at_a_time = BUILD.lock().unwrap();
        Packages::build(VERSIONS[version]).program
    })
}

/// The cluster. Hosts are shut down before their networks are removed.
pub(crate) struct Packaged {
    /// Hosts with systemd: `n1`, `n2`.
    pub(crate) booted: Vec<Booted>,
    pub(crate) scene: Scene,
}

impl Packaged {
    /// Boots the hosts, installs the package of this version, and waits until each host answers all instances.
    pub(crate) fn start(version: usize) -> Self {
        let scene = Scene::without_agents(3);
        let booted = scene.cluster.hosts[..2].iter().map(|host| Booted::start(&host.node, &host.namespace)).collect();
        let mut cluster = Self { booted, scene };
        for (booted, host) in cluster.booted.iter().zip(&cluster.scene.cluster.hosts) {
            configure(booted, host, &cluster.scene.cluster.key);
            booted.install(package(version));
        }
        cluster.scene.start_agent(2, Setup::default());
        cluster.scene.cluster.converge();
        cluster
    }

    /// The first host, whose unit the scenarios act on.
    pub(crate) fn first(&self) -> &Booted {
        &self.booted[0]
    }

    /// Starts clients on all hosts, observes while `act` runs and for a moment longer, and prints the counts. No query may
    /// fail on any host.
    #[track_caller]
    pub(crate) fn assert_no_outage(&self, event: &str, act: impl FnOnce(&Booted)) {
        let observer = self.scene.observe();
        observer.run_for(crate::scene::SECOND);
        let begun = observer.elapsed();
        act(self.first());
        let took = observer.elapsed() - begun;
        observer.run_for(2 * crate::scene::SECOND);
        let back = self.scene.cluster.converge();
        println!("{event}: the command took {took:?}, and all was live {back:?} after it");
        self.finish(observer, event);
    }

    #[track_caller]
    fn finish(&self, observer: Observer, event: &str) {
        let report = observer.finish();
        report.print(&format!("{event}, systemd, 3 nodes"), &["n1"]);
        report.assert_right(&[]);
    }
}

/// Kills the agent with SIGKILL and waits until systemd has started it again.
#[track_caller]
pub(crate) fn crash(host: &Booted) {
    let state = || ["ActiveState", "MainPID"].map(|name| host.property(name));
    let [_, killed] = state();
    host.output_of(&["systemctl", "kill", "--kill-who=main", "--signal=SIGKILL", "muster"]);
    until("systemd starts the agent again", || {
        let [active, pid] = state();
        active == "active" && pid != "0" && pid != killed
    });
}

/// Writes the configuration of a host. The package keeps it.
fn configure(booted: &Booted, host: &Host, key: &str) {
    let (node, listen) = (&host.node, host.address);
    let config = format!(
        "node: {node}\nadvertise: {listen}\n\
         gossip: {{listen: {listen}:{GOSSIP}, key_file: /etc/muster/gossip.key, join: [{}:{GOSSIP}, {}:{GOSSIP}]}}\n",
        address(1),
        address(2)
    );
    booted.write("/etc/muster/muster.yaml", &config);
    booted.write("/etc/muster/gossip.key", &format!("{key}\n"));
    booted.write("/etc/muster/services.d/own.yaml", &format!("service: {SERVICE}\nport: 80\n"));
    booted.write("/etc/muster/services.d/only.yaml", &own_service(host));
}
