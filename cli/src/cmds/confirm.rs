//! Asking before something is done that cannot be undone.

use crate::Session;
use crate::exit::{Exit, Failure};
use crate::output::Stop;

/// Bytes of an answer that are read; more is no answer.
const MAX_ANSWER: u64 = 4_096;

/// Asks on a terminal whether to go on; elsewhere only `yes` lets it.
pub(crate) fn confirm(session: &mut Session<'_>, yes: bool, question: &str) -> Result<(), Stop> {
    if yes {
        return Ok(());
    }
    if !session.input.is_terminal {
        let failure = Failure::new(Exit::Usage, "NOT_CONFIRMED", question.trim_end());
        return Err(failure.hint("if that is what you want: --yes").into());
    }
    let answer = ask(session, &format!("{question} [y/N] "))?;
    match answer.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::No, "NOT_CONFIRMED", "Nothing was done").into()),
    }
}

/// Prints a question and reads a line.
pub(crate) fn ask(session: &mut Session<'_>, question: &str) -> Result<String, Stop> {
    use std::io::{BufRead as _, Read as _};
    // Nothing is left to do if stderr is gone.
    let _ = write!(session.err, "{question}");
    let _ = session.err.flush();
    let mut line = String::new();
    let mut reader = (&mut *session.input.reader).take(MAX_ANSWER);
    reader.read_line(&mut line).map_err(|e| {
        Failure::new(
            Exit::Usage,
            "NOT_CONFIRMED",
            format!("Cannot read the answer: {e}"),
        )
    })?;
    Ok(line.trim().to_owned())
}
