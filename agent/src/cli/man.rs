//! The man page in roff, generated from clap's command tree and the table of configuration keys.

use clap::{Arg, Command};

use crate::config::key::{Effect, KEYS};

pub(super) fn page(mut command: Command) -> Vec<u8> {
    command.build();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).section("1").manual("tr111");
    // Writing to memory cannot fail.
    let _ = man.render_title(&mut page);
    let _ = man.render_name_section(&mut page);
    let _ = man.render_synopsis_section(&mut page);
    let _ = man.render_description_section(&mut page);
    let mut text = String::from(".SH COMMANDS\n");
    commands(&command, "tr111", &mut text);
    text.push_str(".SH GLOBAL OPTIONS\n");
    command.get_arguments().for_each(|argument| option(argument, &mut text));
    configuration(&mut text);
    text.push_str(".SH FILES\n.TP\n/run/tr111/control.sock\nThe control socket.\n");
    text.push_str(".SH ENVIRONMENT\n.TP\nTR111_CONTROL\nPath of the control socket; \\-\\-control overrides it.\n");
    text.push_str(".SH EXIT STATUS\n0 success, 1 failure, 2 usage error.\n");
    page.extend_from_slice(text.as_bytes());
    page
}

fn commands(command: &Command, path: &str, text: &mut String) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        if sub.has_subcommands() {
            commands(sub, &path, text);
            continue;
        }
        let positionals = sub.get_positionals().map(|argument| format!(" {}", value_name(argument)));
        text.extend([".SS ", &escape(&path), &escape(&positionals.collect::<String>()), "\n"]);
        if let Some(about) = sub.get_long_about().or(sub.get_about()) {
            paragraph(&about.to_string(), text);
        }
        sub.get_arguments().filter(|argument| !argument.is_global_set()).for_each(|argument| option(argument, text));
    }
}

fn option(argument: &Arg, text: &mut String) {
    let name = match argument.get_long() {
        Some("help" | "version") => return,
        Some(long) if argument.get_action().takes_values() => format!("--{long} {}", value_name(argument)),
        Some(long) => format!("--{long}"),
        None => value_name(argument),
    };
    text.extend([".TP\n.B ", &escape(&name), "\n"]);
    if let Some(help) = argument.get_long_help().or(argument.get_help()) {
        paragraph(&help.to_string(), text);
    }
}

fn value_name(argument: &Arg) -> String {
    let names = argument.get_value_names().unwrap_or_default();
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn configuration(text: &mut String) {
    text.push_str(".SH CONFIGURATION\n");
    paragraph(
        "The option --config names a TOML file. Flags override it. An unknown key or an invalid value is an error. \
         Keys marked live can be changed at run time: with tr111 tune, or in the file followed by SIGHUP.",
        text,
    );
    let mut section = "";
    for key in KEYS.iter().filter(|key| key.effect != Effect::Obsolete) {
        if key.section != section {
            section = key.section;
            text.extend([".SS [", &escape(section), "]\n"]);
        }
        let live = if key.effect == Effect::Live { ", live" } else { "" };
        let preset = key.preset_value().map_or_else(|| "none".to_owned(), |value| value.to_string());
        text.extend([".TP\n.B ", &escape(key.name), "\n"]);
        paragraph(&format!("{}. {}; default {preset}{live}.", key.help, key.range()), text);
    }
}

fn paragraph(words: &str, text: &mut String) {
    for line in words.lines() {
        if line.is_empty() {
            text.push_str(".PP\n");
        } else {
            text.push_str(&escape(line));
            text.push('\n');
        }
    }
}

/// Escapes text for roff: no escape sequences, no requests, and hyphens that can be copied.
fn escape(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_page_names_every_command_and_every_key_that_works() {
        let page = String::from_utf8(page(super::super::Cli::command())).expect("text");
        for command in
            ["run gateway", "detach", "devices", "status", "get PATH", "watch", "tune", "check", "sim devices"]
        {
            assert!(page.contains(&format!(".SS tr111 {command}")), "{command}\n{page}");
        }
        for key in KEYS.iter().filter(|key| key.effect != Effect::Obsolete) {
            assert!(page.contains(&format!(".B {}\n", escape(key.name))), "{}", key.path());
        }
    }

    #[test]
    fn text_cannot_become_a_roff_request() {
        assert_eq!(escape(".so /etc/passwd"), "\\&.so /etc/passwd");
        assert_eq!(escape("a\\fB-b"), "a\\efB\\-b");
    }
}
