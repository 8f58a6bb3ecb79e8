//! systemd probe: a unit passes while it is active or reloads, since it serves during a reload.
//!
//! All other states are critical, including `activating`: such a unit has not reported readiness, and a unit in a crash loop
//! is mostly `activating (auto-restart)`.

use std::{path::Path, process::ExitStatus};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    error::ProbeError,
    process::{self, Output},
};

pub(super) async fn probe(
    systemctl: &Path,
    unit: &str,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<(), ProbeError> {
    let arguments = ["show", "--property=LoadState,ActiveState,SubState", "--", unit];
    let mut output = Output::default();
    match process::run(systemctl.as_os_str(), arguments, permit, &mut output).await {
        Ok(status) => evaluate(status, &output),
        Err(failure) => Err(failure.of("systemctl")),
    }
}

fn evaluate(status: ExitStatus, output: &Output) -> Result<(), ProbeError> {
    if !status.success() {
        return Err(ProbeError::critical(format!("systemctl: {}", output.first_line())));
    }
    let text = output.text();
    let property = |name: &str| {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix('=').map(|value| value.trim().to_owned());
        text.lines().find_map(value).unwrap_or_default()
    };
    let (load, active, sub) = (property("LoadState"), property("ActiveState"), property("SubState"));
    match (load.as_str(), active.as_str()) {
        (_, "active" | "reloading" | "refreshing") => Ok(()),
        ("not-found", _) => Err(ProbeError::critical("unit not found")),
        ("masked", _) => Err(ProbeError::critical("unit masked")),
        (_, "") => Err(ProbeError::critical("systemctl: no state of the unit")),
        (_, state) if state == sub => Err(ProbeError::critical(format!("unit {state}"))),
        (_, state) => Err(ProbeError::critical(format!("unit {state} ({sub})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::fixtures::options;

    #[tokio::test]
    async fn only_an_active_unit_passes() {
        let cases = [
            ("active.service", "pass"),
            ("oneshot.service", "pass"),
            ("reloading.service", "pass"),
            ("starting.service", "unit activating (start)"),
            ("crashing.service", "unit activating (auto-restart)"),
            ("stopping.service", "unit deactivating (stop-sigterm)"),
            ("stopped.service", "unit inactive (dead)"),
            ("failed.service", "unit failed"),
            ("masked.service", "unit masked"),
            ("absent.service", "unit not found"),
            ("--help", "unit not found"), // a unit name is never parsed as an option
            ("silent.service", "systemctl: no state of the unit"),
            (
                "offline.service",
                "systemctl: System has not been booted with systemd as init system (PID 1). Can't operate.",
            ),
        ];
        for (unit, expected) in cases {
            let got = match probe(&options().systemctl, unit, None).await {
                Ok(()) => "pass".to_owned(),
                Err(ProbeError::Critical(reason)) => reason,
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(got, expected, "{unit}");
        }
        let got = probe(Path::new("/nonexistent/systemctl"), "active.service", None).await;
        assert_eq!(got, Err(ProbeError::critical("systemctl: program not found")));
    }
}
