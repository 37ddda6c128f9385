//! `syncctl journal`.

use p2p_sync_proto::v1;
use serde::Serialize;

use crate::output::{JsonPath, Stop, escape, number, size};
use crate::{CALL_TIMEOUT, Client, Session};

#[derive(Debug, Serialize)]
struct Json {
    schema: &'static str,
    last_stop_clean: bool,
    recovered_paths: Vec<JsonPath>,
    in_use_paths: Vec<JsonPath>,
    open_installs: u64,
    size_bytes: u64,
}

pub(crate) async fn run(session: &mut Session<'_>) -> Result<(), Stop> {
    let call = async |mut client: Client| client.get_journal(v1::GetJournalRequest {}).await;
    let journal = session.call(CALL_TIMEOUT, call).await?;
    session.out.answer(&json(&journal), || words(&journal))
}

fn json(journal: &v1::GetJournalResponse) -> Json {
    let paths = |list: &[Vec<u8>]| list.iter().map(|p| JsonPath::new(p)).collect();
    Json {
        schema: "p2psync.journal/1",
        last_stop_clean: journal.last_stop_clean,
        recovered_paths: paths(&journal.recovered_paths),
        in_use_paths: paths(&journal.in_use_paths),
        open_installs: journal.open_installs,
        size_bytes: journal.size_bytes,
    }
}

fn words(journal: &v1::GetJournalResponse) -> String {
    let mut text = format!(
        "Last stop clean  {}\nIn use           {}\nOpen installs    {}\nJournal size     {}\n",
        if journal.last_stop_clean { "yes" } else { "no" },
        number(journal.in_use_paths.len() as u64),
        number(journal.open_installs),
        size(journal.size_bytes),
    );
    for (heading, paths) in [
        ("Looked at after the last stop", &journal.recovered_paths),
        ("In use now", &journal.in_use_paths),
    ] {
        if !paths.is_empty() {
            text.push_str(&format!("\n{heading}:\n"));
        }
        for path in paths {
            let shown = if path == b"." {
                "the whole folder".to_owned()
            } else {
                escape(path)
            };
            text.push_str(&format!("  {shown}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_in_words_and_as_json() {
        let journal = v1::GetJournalResponse {
            last_stop_clean: false,
            recovered_paths: vec![b".".to_vec()],
            in_use_paths: vec![b"docs/a".to_vec()],
            open_installs: 1,
            size_bytes: 2048,
        };
        assert_eq!(
            words(&journal),
            "\
Last stop clean  no
In use           1
Open installs    1
Journal size     2.0 KiB

Looked at after the last stop:
  the whole folder

In use now:
  docs/a
"
        );
        assert_eq!(
            serde_json::to_string(&json(&journal)).unwrap(),
            r#"{"schema":"p2psync.journal/1","last_stop_clean":false,"recovered_paths":[{"path":".","path_hex":null}],"in_use_paths":[{"path":"docs/a","path_hex":null}],"open_installs":1,"size_bytes":2048}"#
        );
    }
}
