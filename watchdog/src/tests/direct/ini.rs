//! tox.ini and setup.cfg: tox's commands, a line each.

use super::place::Sink;
use super::shell::Dialect;

pub(super) const TOX: Option<&str> = Some("add memwatch to tox's allowlist_externals");

/// Looks through an INI file.
pub(super) fn look(text: &str, sink: &mut Sink) {
    look_from(text, 0, sink);
}

/// The same for one that so many lines come before.
pub(super) fn look_from(text: &str, before: usize, sink: &mut Sink) {
    let mut section = "";
    let mut in_commands = false;
    let mut code = String::new();
    let mut first_line = 0;
    for (number, line) in (before + 1..).zip(text.lines()) {
        let bare = line.trim();
        let continues = code.trim_end().ends_with('\\');
        let mut command = None;
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        } else if line.starts_with([' ', '\t']) {
            command = in_commands.then_some(bare);
        } else if let Some(name) = bare.strip_prefix('[') {
            section = name.split(']').next().unwrap_or_default();
            in_commands = false;
        } else if let Some((key, value)) = bare.split_once(['=', ':']) {
            let is_tox = section.starts_with("testenv")
                || section.starts_with("tox:")
                || section.starts_with("base");
            in_commands =
                is_tox && matches!(key.trim(), "commands" | "commands_pre" | "commands_post");
            command = in_commands.then_some(value.trim());
        }
        let Some(command) = command else { continue };
        if continues {
            code.push('\n');
            code.push_str(command);
        } else {
            sink.shell(&code, first_line, Dialect::Plain, TOX);
            code.clear();
            code.push_str(without_conditions(command));
            first_line = number;
        }
    }
    sink.shell(&code, first_line, Dialect::Plain, TOX);
}

/// `py39,lint: pytest`, `- pytest`, `! pytest`: for whom the line is, and what its failure means.
fn without_conditions(command: &str) -> &str {
    let factor = command.split_once(": ").filter(|(factor, _)| {
        let mut bytes = factor.bytes();
        bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.,{}! ".contains(&byte))
            && !factor.contains("pytest ")
    });
    let command = factor.map_or(command, |(_, command)| command);
    command.trim_start_matches(['-', '!', ' '])
}
