//! Entry point of the `muster` binary.

use muster::cli::{Exit, run};

fn main() -> Exit {
    run(std::env::args_os())
}
