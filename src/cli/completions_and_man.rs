//! `muster completions` and `muster man`: completions and man pages, generated from the definition of the arguments.

use std::{fs, path::PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::{
    Arguments, EXIT_STATUS, Exit,
    output::{print_error, write},
};

/// Name of the program.
const NAME: &str = "muster";
/// Name of the command that clap adds below commands with others below them.
const HELP: &str = "help";

#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// Shell to generate completions for
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Existing folder to write the pages to
    folder: PathBuf,
}

/// Prints the completion script of a shell.
pub(super) fn completions(args: &CompletionsArgs) -> Exit {
    // In memory: clap panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), NAME, &mut script);
    write(&script);
    Exit::Done
}

/// Writes a page for the program and one for each command, those below others included.
pub(super) fn man(args: &ManArgs) -> Exit {
    for (name, text) in pages() {
        let path = args.folder.join(name);
        if let Err(error) = fs::write(&path, text) {
            print_error!("muster: cannot write {}: {error}", path.display());
            return Exit::CouldNotRun;
        }
    }
    Exit::Done
}

fn pages() -> Vec<(String, Vec<u8>)> {
    let mut root = Arguments::command();
    root.build();
    let mut pages = Vec::new();
    add_pages(&mut pages, NAME, &root);
    pages
}

/// Adds the pages of a command and of those below it, which its page refers to.
fn add_pages(pages: &mut Vec<(String, Vec<u8>)>, name: &str, command: &Command) {
    pages.push(page(name, command.clone()));
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != HELP) {
        add_pages(pages, &format!("{name}-{}", below.get_name()), below);
    }
}

fn page(name: &str, command: Command) -> (String, Vec<u8>) {
    let has_exit_status = command.get_after_help().is_some();
    let command = if has_exit_status { command } else { command.after_help(EXIT_STATUS) };
    let command = command.display_name(name.to_owned());
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = clap_mangen::Man::new(command).title(name).manual("User commands").source(NAME).render(&mut text);
    (format!("{name}.1"), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_man_page_and_a_completion() {
        let pages = pages();
        let mut completions = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Arguments::command(), NAME, &mut completions);
        let completions = String::from_utf8(completions).unwrap();
        let page = |name: &str| {
            let page = pages.iter().find(|(page, _)| page == name);
            String::from_utf8(page.unwrap_or_else(|| panic!("no {name}")).1.clone()).unwrap()
        };
        for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let below =
                command.get_subcommands().map(|below| format!("{NAME}-{}-{}.1", command.get_name(), below.get_name()));
            for name in below.chain([format!("{NAME}-{}.1", command.get_name())]) {
                let text = page(&name);
                assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}");
                assert!(text.contains("Exit status"), "{name}");
            }
            assert!(completions.contains(command.get_name()), "{}", command.get_name());
        }
        assert!(page("muster.1").contains("muster\\-store(1)"));
        assert!(page("muster-store.1").contains("muster\\-store\\-status(1)"));
    }
}
