//! Asks the operator on the terminal before something is changed.

use std::io::{BufRead, IsTerminal, Write, stderr, stdin};

use crate::CommandError;

/// Returns if the operator agrees to what `question` says. With `yes`, the operator has agreed already.
///
/// # Errors
/// When the operator does not agree, or cannot be asked because standard input is not a terminal.
pub(crate) fn ask(question: &str, yes: bool) -> Result<(), CommandError> {
    match (yes, stdin().is_terminal()) {
        (true, _) => Ok(()),
        (false, true) => ask_on(question, &mut stdin().lock(), &mut stderr()),
        (false, false) => Err(CommandError(
            "nothing was changed: standard input is not a terminal, so the command cannot ask; add --yes".to_owned(),
        )),
    }
}

fn ask_on(question: &str, input: &mut impl BufRead, output: &mut impl Write) -> Result<(), CommandError> {
    let mut answer = String::new();
    let read = write!(output, "{question} [y/N] ")
        .and_then(|()| output.flush())
        .and_then(|()| input.read_line(&mut answer));
    read.map_err(|error| CommandError(format!("cannot ask on the terminal: {error}")))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(CommandError("nothing was changed".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_counts_as_consent() {
        for (answer, agrees) in [
            ("y\n", true),
            ("Y\n", true),
            (" yes \r\n", true),
            ("\n", false),
            ("n\n", false),
            ("yess\n", false),
            ("", false),
        ] {
            let mut output = Vec::new();
            let asked = ask_on("Remove it?", &mut answer.as_bytes(), &mut output);
            assert_eq!(asked.is_ok(), agrees, "{answer:?}");
            assert_eq!(output, b"Remove it? [y/N] ");
        }
    }
}
