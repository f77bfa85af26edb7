//! What can be typed to learn more: commands of the program, as a shell takes them. Pure.

use crate::text;

/// `restart_exporter VERB …` about a supervisor or child of this name, whatever characters are in it.
///
/// `url` is where the exporter is reached, none if that is where the program looks by itself; `node` the Erlang node of the
/// supervisor.
pub fn command(verb: &str, url: Option<&str>, node: Option<&str>, name: &str) -> String {
    let option = |option: &str, value: Option<&str>| {
        value.map_or_else(String::new, |value| format!(" {option}={}", shell_word(value)))
    };
    // A name may begin as an option does.
    let end = if name.starts_with('-') { " --" } else { "" };
    format!("restart_exporter {verb}{}{}{end} {}", option("--url", url), option("--node", node), shell_word(name))
}

/// A word of a command, quoted if a shell would not take it as it is. What is not seen cannot be typed or copied, so it is
/// written as bytes.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else if !word.contains(text::is_unseen) {
        format!("'{}'", word.replace('\'', r"'\''"))
    } else {
        format!("$'{}'", word.chars().map(visible).collect::<String>())
    }
}

/// A character between `$'` and `'`.
fn visible(character: char) -> String {
    match character {
        '\'' | '\\' => format!("\\{character}"),
        unseen if text::is_unseen(unseen) => {
            unseen.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("\\x{byte:02x}")).collect()
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What is told to be typed does what it says, whatever the child is called.
    #[test]
    fn a_command_can_be_typed_whatever_the_name() {
        for (name, expected) in [
            ("payments/worker-3", "restart_exporter why payments/worker-3"),
            ("two words", "restart_exporter why 'two words'"),
            ("it's; rm -rf /", r"restart_exporter why 'it'\''s; rm -rf /'"),
            ("a=b", "restart_exporter why 'a=b'"),
            ("--json", "restart_exporter why -- --json"),
            ("", "restart_exporter why ''"),
            ("it's\u{202e}\n", r"restart_exporter why $'it\'s\xe2\x80\xae\x0a'"),
        ] {
            assert_eq!(command("why", None, None, name), expected);
        }
        let elsewhere = command("history", Some("http://web-1:80"), Some("app@web-1"), "sup");
        assert_eq!(elsewhere, "restart_exporter history --url=http://web-1:80 --node=app@web-1 sup");
    }
}
