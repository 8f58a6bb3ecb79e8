//! The tasks of a running agent. Each runs until shutdown; a task that ends earlier stops the agent.

use std::{collections::HashMap, panic::resume_unwind};

use tokio::task::{Id, JoinHandle, JoinSet};

/// The running tasks, with the names that error messages and logs use.
#[derive(Default)]
pub(super) struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Spawns a task.
    pub(super) fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.running.spawn(task).id(), name);
    }

    /// Adds a task that already runs.
    pub(super) fn watch(&mut self, name: &'static str, task: JoinHandle<()>) {
        self.spawn(name, async move {
            if let Err(error) = task.await
                && let Ok(panic) = error.try_into_panic()
            {
                resume_unwind(panic);
            }
        });
    }

    /// Waits for any task to end and returns its name; `None` if none is left.
    pub(super) async fn ended(&mut self) -> Option<&'static str> {
        let id = match self.running.join_next_with_id().await? {
            Ok((id, ())) => id,
            Err(error) => error.id(),
        };
        self.names.get(&id).copied()
    }
}
