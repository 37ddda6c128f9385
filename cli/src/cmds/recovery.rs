//! `syncctl recovery`: the recovery key as words.
//!
//! The words are those of BIP-39 for 32 bytes, in English, so that a slip of the pen is noticed. They go to a terminal and
//! nowhere else, and the daemon erases them only when somebody has shown that he wrote them down.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{BufRead as _, Read as _};

use bip39::{Language, Mnemonic};
use p2p_sync_proto::v1;
use serde::Serialize;
use tonic::transport::Channel;

use crate::client::Recovery;
use crate::cmds::confirm::ask;
use crate::exit::{Exit, Failure};
use crate::output::Stop;
use crate::{CALL_TIMEOUT, Session};

/// Words of a secret of 32 bytes.
const WORDS: usize = 24;
/// Words on a line.
const PER_LINE: usize = 4;
/// Words that are asked for.
const ASKED: usize = 3;
/// Bytes of typed words that are read; 24 words have at most 215.
const MAX_TYPED: u64 = 4_096;
/// Takes what was printed off the screen and out of what can be scrolled back to.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    role: &'static str,
}

pub(crate) async fn show(session: &mut Session<'_>) -> Result<(), Stop> {
    if session.out.json || !session.out.is_terminal || !session.input.is_terminal {
        let text = "The recovery words are shown on a terminal only: whoever has them owns the group";
        let failure = Failure::new(Exit::Usage, "NO_TERMINAL", text);
        return Err(failure
            .hint("type it in a terminal, without --json: syncctl recovery show")
            .into());
    }
    let call = async |channel: Channel| {
        Recovery::new(channel)
            .show_recovery(v1::ShowRecoveryRequest {})
            .await
    };
    let secret = session.call_on(CALL_TIMEOUT, call).await?.secret;
    let words = to_words(&secret)?;
    session.out.bytes(sheet(&words).as_bytes())?;
    ask(session, "Write them down in this order, then press Enter: ")?;
    session.out.bytes(CLEAR.as_bytes())?;
    for number in chosen(&RandomState::new()) {
        let typed = ask(session, &format!("Word {}: ", number + 1))?;
        if typed.to_lowercase() != words[number] {
            let text = "That is another word; the words stay on this device";
            let failure = Failure::new(Exit::No, "NOT_CONFIRMED", text);
            return Err(failure.hint("look again: syncctl recovery show").into());
        }
    }
    let call = async |channel: Channel| {
        Recovery::new(channel)
            .forget_recovery(v1::ForgetRecoveryRequest {})
            .await
    };
    session.call_on(CALL_TIMEOUT, call).await?;
    session
        .out
        .bytes(b"The words are not on this device any more. Keep the paper where you keep keys.\n")
}

pub(crate) async fn take(session: &mut Session<'_>) -> Result<(), Stop> {
    let secret = from_words(&typed(session)?)?;
    let request = v1::UseRecoveryRequest {
        secret: secret.to_vec(),
    };
    let call = async |channel: Channel| Recovery::new(channel).use_recovery(request).await;
    session.call_on(CALL_TIMEOUT, call).await?;
    let json = Json {
        schema: "p2psync.recovery-use/1",
        role: "owner",
    };
    session.out.answer(&json, || {
        "This device is an owner now, senior to all others; see: syncctl member list".to_owned()
    })
}

/// Reads the words: a line on a terminal, all there is elsewhere.
fn typed(session: &mut Session<'_>) -> Result<String, Stop> {
    if session.input.is_terminal {
        return ask(session, "The 24 recovery words: ");
    }
    let mut text = String::new();
    let mut reader = (&mut *session.input.reader).take(MAX_TYPED);
    while reader.read_line(&mut text).map_err(|e| bad(&e.to_string()))? > 0 {}
    Ok(text)
}

/// Returns the words of a secret.
fn to_words(secret: &[u8]) -> Result<Vec<&'static str>, Failure> {
    let words = Mnemonic::from_entropy_in(Language::English, secret).ok();
    let words: Vec<&'static str> = words.iter().flat_map(Mnemonic::words).collect();
    if words.len() == WORDS {
        return Ok(words);
    }
    Err(Failure::new(
        Exit::Protocol,
        "BAD_SECRET",
        "The daemon sent no recovery key",
    ))
}

/// Reads the words of a secret.
fn from_words(text: &str) -> Result<[u8; 32], Failure> {
    let text = text.to_lowercase();
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.len() != WORDS {
        return Err(bad(&format!("there are {} words, not {WORDS}", words.len())));
    }
    let unknown = words
        .iter()
        .position(|word| Language::English.find_word(word).is_none());
    if let Some(number) = unknown {
        return Err(bad(&format!("word {} is none of the list", number + 1)));
    }
    let read = Mnemonic::parse_in_normalized(Language::English, &words.join(" "));
    let (bytes, length) = read
        .map_err(|_| bad("one of them is another, or they are in another order"))?
        .to_entropy_array();
    bytes
        .get(..length)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| bad("they are too few"))
}

fn bad(why: &str) -> Failure {
    let text = format!("These are not recovery words: {why}");
    Failure::new(Exit::Data, "BAD_WORDS", text).hint("type all 24 in their order: syncctl recovery use")
}

/// Returns the words with their numbers.
fn sheet(words: &[&str]) -> String {
    let mut text = String::new();
    for (line, words) in words.chunks(PER_LINE).enumerate() {
        for (column, word) in words.iter().enumerate() {
            let number = line * PER_LINE + column + 1;
            text.push_str(&format!("{number:>4} {word:<10}"));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Returns different numbers of words, in ascending order.
fn chosen(random: &RandomState) -> Vec<usize> {
    let mut numbers = Vec::new();
    let mut count: u64 = 0;
    while numbers.len() < ASKED {
        let mut hasher = random.build_hasher();
        hasher.write_u64(count);
        count += 1;
        let number = usize::try_from(hasher.finish() % WORDS as u64).unwrap_or_default();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_bip_39() {
        let words = to_words(&[0; 32]).unwrap();
        assert_eq!((words[0], words[22], words[23]), ("abandon", "abandon", "art"));
        let secret: Vec<u8> = (0..32).collect();
        let words = to_words(&secret).unwrap();
        assert_eq!(from_words(&words.join("\n")).unwrap().to_vec(), secret);
        assert_eq!(
            from_words(&words.join(" ").to_uppercase()).unwrap().to_vec(),
            secret
        );
        assert!(to_words(&[0; 16]).is_err());
    }

    #[test]
    fn a_slip_of_the_pen_is_noticed() {
        let mut words = to_words(&(0..32).collect::<Vec<u8>>()).unwrap();
        let message = |words: &[&str]| from_words(&words.join(" ")).unwrap_err().message;
        words.swap(3, 4);
        assert!(message(&words).contains("another order"), "{}", message(&words));
        words[5] = "p2p";
        assert!(message(&words).contains("word 6"), "{}", message(&words));
        assert!(
            message(&words[1..]).contains("23 words"),
            "{}",
            message(&words[1..])
        );
    }

    #[test]
    fn the_words_are_numbered_and_three_different_ones_are_asked_for() {
        let words = to_words(&[0; 32]).unwrap();
        let sheet = sheet(&words);
        assert_eq!(sheet.lines().count(), 6);
        assert!(sheet.ends_with("24 art\n"), "{sheet}");
        for _ in 0..100 {
            let chosen = chosen(&RandomState::new());
            assert!(
                chosen.is_sorted_by(|a, b| a < b) && chosen.len() == ASKED,
                "{chosen:?}"
            );
            assert!(chosen.iter().all(|number| *number < WORDS));
        }
    }
}
