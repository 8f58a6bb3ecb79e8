//! The `muster` program.

use muster::cli::{Exit, run};

fn main() -> Exit {
    run(std::env::args_os())
}
