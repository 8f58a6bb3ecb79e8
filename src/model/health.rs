//! How results of one check add up to a standing: `rise` passes in a row make healthy, `fall` failures in a row make
//! unhealthy. Pure: a result in, the standing out. Who asks, and when, is in `checks`.

/// What one probe found, and the standing that results add up to. Ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// All is well.
    Passing,
    /// Works, but somebody should look: answered with a tenth of the weight.
    Warning,
    /// Does not work: not answered.
    Critical,
}

impl Status {
    /// Whether an instance in this standing is answered.
    pub fn is_healthy(self) -> bool {
        self != Self::Critical
    }

    /// The word for it in files, logs and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}
