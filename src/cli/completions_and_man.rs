//! `muster completions` and `muster man`: completions and man pages, generated from the definition of the arguments.

use std::{fs, io, path::PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Arguments, Exit};

/// Name of the program.
const NAME: &str = "muster";

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
    clap_complete::generate(args.shell, &mut Arguments::command(), NAME, &mut io::stdout());
    Exit::Done
}

/// Writes a page for the program and one for each command.
pub(super) fn man(args: &ManArgs) -> Exit {
    for (name, text) in pages() {
        let path = args.folder.join(name);
        if let Err(error) = fs::write(&path, text) {
            eprintln!("muster: cannot write {}: {error}", path.display());
            return Exit::CouldNotRun;
        }
    }
    Exit::Done
}

fn pages() -> Vec<(String, Vec<u8>)> {
    let mut root = Arguments::command();
    root.build();
    let visible = root.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let commands = visible.map(|command| (format!("{NAME}-{}", command.get_name()), command));
    [(NAME.to_owned(), root.clone())].into_iter().chain(commands).map(|(name, command)| page(&name, command)).collect()
}

fn page(name: &str, command: clap::Command) -> (String, Vec<u8>) {
    let command = command.display_name(name);
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
        for command in Arguments::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = format!("{NAME}-{}.1", command.get_name());
            let page = pages.iter().find(|(page, _)| *page == name);
            let text = String::from_utf8(page.unwrap_or_else(|| panic!("no {name}")).1.clone()).unwrap();
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{name}");
            assert!(completions.contains(command.get_name()), "{name}");
        }
    }
}
