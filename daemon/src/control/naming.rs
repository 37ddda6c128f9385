//! What users call devices and invites: an id, the beginning of one, a name, a ticket.

use libp2p::identity::ed25519;
use p2p_sync_core::engine::{InviteReport, MemberReport};
use p2p_sync_core::ids::DeviceId;
use p2p_sync_core::ledger::Person;
use p2p_sync_core::ticket::{PREFIX, Ticket};
use p2p_sync_proto::reason;
use tonic::Status;

use super::status::{invalid, not_found};

/// Before the tag of a person, where that could be taken for a device's name.
const PERSON: &str = "person:";
/// Digits that the beginning of an id must have: fewer are typed by mistake.
const MIN_DIGITS: usize = 4;
/// Digits by which candidates are told apart.
const SHOWN_DIGITS: usize = 16;
/// Candidates that an error lists.
const MAX_CANDIDATES: usize = 10;

/// Returns the device that a text names: by its id, by the beginning of it, or by its name. Somebody who was a member
/// is found by name only if no member has it.
///
/// # Errors
/// `NOT_FOUND` if there is none, `INVALID_ARGUMENT` if there are several.
pub(super) fn device(text: &str, known: &[MemberReport]) -> Result<DeviceId, Status> {
    let digits = text.to_ascii_lowercase();
    if let Some(report) = known.iter().find(|report| report.device.to_hex() == digits) {
        return Ok(report.device);
    }
    let by_id = |report: &&MemberReport| begins(&report.device.to_hex(), &digits);
    let by_name = |report: &&MemberReport| !text.is_empty() && report.name == text;
    let members = |report: &&MemberReport| report.role.is_some() && by_name(report);
    let mut found: Vec<&MemberReport> = known
        .iter()
        .filter(|report| by_id(report) || members(report))
        .collect();
    if found.is_empty() {
        found = known.iter().filter(by_name).collect();
    }
    match found[..] {
        [one] => Ok(one.device),
        [] => {
            let text = format!("No device of the group is called {text:.100}");
            Err(not_found(reason::NO_SUCH_MEMBER, text))
        }
        _ => {
            let candidates = found
                .iter()
                .map(|report| format!("{} {}", shown(&report.device.to_hex()), report.name));
            Err(ambiguous(text, candidates))
        }
    }
}

/// Returns the members and those who were that texts name: each a device, or a person, that is, all members that have the
/// tag. What could be either has to be said more exactly.
///
/// # Errors
/// As [`device()`].
pub(super) fn devices(texts: &[String], known: &[MemberReport]) -> Result<Vec<DeviceId>, Status> {
    let mut found: Vec<DeviceId> = Vec::new();
    for text in texts {
        for device in one_or_persons(text, known)? {
            if !found.contains(&device) {
                found.push(device);
            }
        }
    }
    Ok(found)
}

fn one_or_persons(text: &str, known: &[MemberReport]) -> Result<Vec<DeviceId>, Status> {
    if let Some(person) = text.strip_prefix(PERSON) {
        let devices = of_person(person, known);
        return if devices.is_empty() {
            let text = format!("No member is a device of {person:.100}; see: syncctl member list");
            Err(not_found(reason::NO_SUCH_MEMBER, text))
        } else {
            Ok(devices)
        };
    }
    let persons = of_person(text, known);
    match device(text, known) {
        Ok(device) if persons.is_empty() || persons == [device] => Ok(vec![device]),
        Err(status) if persons.is_empty() => Err(status),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(persons),
        named => {
            let device = match named {
                Ok(device) => format!("the device alone: {}", beginning(&device)),
                Err(_) => "one device: its id".to_owned(),
            };
            Err(invalid(
                reason::AMBIGUOUS,
                format!(
                    "{text:.100} is what a device is called, and the person of {}; type, for the person: {PERSON}{text:.100}; \
                     for {device}",
                    list(&persons)
                ),
            ))
        }
    }
}

fn of_person(text: &str, known: &[MemberReport]) -> Vec<DeviceId> {
    let is_it = |person: &Person| person.as_str() == text;
    let members = known.iter().filter(|report| report.role.is_some());
    members
        .filter(|report| report.person.as_ref().is_some_and(is_it))
        .map(|report| report.device)
        .collect()
}

/// Returns the beginning of a device's id, enough to name it by.
pub(super) fn beginning(device: &DeviceId) -> String {
    shown(&device.to_hex()).to_owned()
}

/// Returns the beginnings of the ids of devices, for people.
pub(super) fn list(devices: &[DeviceId]) -> String {
    let mut list: Vec<String> = devices.iter().take(MAX_CANDIDATES).map(beginning).collect();
    if devices.len() > MAX_CANDIDATES {
        list.push(format!("{} more", devices.len() - MAX_CANDIDATES));
    }
    list.join(", ")
}

/// Returns the key of the invite that a text names: by its key, by the beginning of it, or by its ticket.
///
/// # Errors
/// `NOT_FOUND` if there is none, `INVALID_ARGUMENT` if there are several, or the text is a damaged ticket.
pub(super) fn invite(text: &str, known: &[InviteReport]) -> Result<[u8; 32], Status> {
    let mut digits = text.trim().to_ascii_lowercase();
    if digits.starts_with(PREFIX) {
        let ticket = Ticket::parse(text).map_err(|e| invalid(reason::BAD_TICKET, e.to_string()))?;
        digits = hex(&invite_key(&ticket));
    }
    let found: Vec<&InviteReport> = known
        .iter()
        .filter(|report| begins(&hex(&report.key), &digits))
        .collect();
    match found[..] {
        [one] => Ok(one.key),
        [] => Err(not_found(reason::NO_SUCH_INVITE, "There is no such invite")),
        _ => Err(ambiguous(
            text,
            found.iter().map(|report| shown(&hex(&report.key)).to_owned()),
        )),
    }
}

/// Returns the public key of a ticket's invite.
pub(super) fn invite_key(ticket: &Ticket) -> [u8; 32] {
    // Any 32 bytes are a secret key.
    ed25519::SecretKey::try_from_bytes(ticket.secret).map_or([0; 32], |secret| {
        ed25519::Keypair::from(secret).public().to_bytes()
    })
}

/// Returns a key in hexadecimal.
pub(super) fn hex(key: &[u8; 32]) -> String {
    DeviceId::new(*key).to_hex()
}

fn begins(id: &str, digits: &str) -> bool {
    digits.len() >= MIN_DIGITS && id.starts_with(digits)
}

fn shown(id: &str) -> &str {
    id.get(..SHOWN_DIGITS).unwrap_or(id)
}

fn ambiguous(text: &str, candidates: impl Iterator<Item = String>) -> Status {
    let list: Vec<String> = candidates.take(MAX_CANDIDATES).collect();
    let list = list.join(", ");
    invalid(
        reason::AMBIGUOUS,
        format!("{text:.100} names more than one: {list}"),
    )
}

#[cfg(test)]
mod tests {
    use p2p_sync_core::access::{GrantFlags, Role, Scopes};
    use p2p_sync_core::ids::GroupId;

    use super::*;

    fn report(first: u8, second: u8, name: &str, role: Option<Role>) -> MemberReport {
        let mut id = [0xaa; 32];
        (id[0], id[1], id[2]) = (0xab, first, second);
        MemberReport {
            device: DeviceId::new(id),
            name: name.to_owned(),
            person: None,
            role,
            scopes: Scopes::whole(),
            flags: GrantFlags::default(),
            granted_by: None,
            ended_by: None,
            removed_by: None,
            reason: String::new(),
            events: 0,
        }
    }

    fn group() -> Vec<MemberReport> {
        vec![
            report(0xcd, 1, "anna", Some(Role::Owner)),
            report(0xcd, 2, "ben", Some(Role::Editor)),
            report(0xce, 3, "ben", None),
            report(0xcf, 4, "abcd", Some(Role::Editor)),
            report(0xd0, 5, "gone", None),
            report(0xd1, 6, "twin", Some(Role::Viewer)),
            report(0xd2, 7, "twin", Some(Role::Viewer)),
        ]
    }

    fn found(text: &str) -> Result<usize, (tonic::Code, String)> {
        let group = group();
        let id = device(text, &group).map_err(|status| (status.code(), status.message().to_owned()))?;
        Ok(group
            .iter()
            .position(|report| report.device == id)
            .expect("one of them"))
    }

    #[test]
    fn a_device_is_found_by_id_by_the_beginning_of_it_and_by_name() {
        assert_eq!(found(&group()[0].device.to_hex()), Ok(0));
        assert_eq!(found(&group()[0].device.to_hex().to_uppercase()), Ok(0));
        assert_eq!(found("abcd02"), Ok(1));
        assert_eq!(found("anna"), Ok(0));
        // Who is a member comes before who was one.
        assert_eq!(found("ben"), Ok(1));
        assert_eq!(found("gone"), Ok(4));
    }

    #[test]
    fn too_few_digits_name_nobody() {
        for text in ["", "a", "abc", "xyz", "abcd99"] {
            assert_eq!(found(text).unwrap_err().0, tonic::Code::NotFound, "{text}");
        }
    }

    #[test]
    fn several_candidates_are_an_error_that_lists_them() {
        // Two ids begin so, and one device is called so.
        let (code, message) = found("abcd").unwrap_err();
        assert_eq!(code, tonic::Code::InvalidArgument);
        for part in [
            "abcd01aaaaaaaaaa anna",
            "abcd02aaaaaaaaaa ben",
            "abcf04aaaaaaaaaa abcd",
        ] {
            assert!(message.contains(part), "{message}");
        }
        let (_, message) = found("twin").unwrap_err();
        assert!(
            message.contains("abd106") && message.contains("abd207"),
            "{message}"
        );
    }

    #[test]
    fn a_persons_tag_names_all_members_that_have_it_unless_a_device_is_called_so() {
        let mut group = group();
        for (at, person) in [
            (0, "Anna"),
            (1, "Anna"),
            (2, "Anna"),
            (3, "gone"),
            (5, "twin"),
            (6, "abcf"),
        ] {
            group[at].person = Person::parse(person).ok();
        }
        let found = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let ids =
                devices(&texts, &group).map_err(|status| (status.code(), status.message().to_owned()))?;
            let place = |id| group.iter().position(|report| report.device == id);
            Ok::<_, (tonic::Code, String)>(ids.into_iter().filter_map(place).collect::<Vec<_>>())
        };
        // Who is no member any more is not removed again with the others.
        assert_eq!(found(&["Anna"]), Ok(vec![0, 1]));
        assert_eq!(found(&["person:Anna", "anna", "abd106"]), Ok(vec![0, 1, 5]));
        assert_eq!(found(&["person:gone"]), Ok(vec![3]));
        // One device whose name and person are the same is that device.
        assert_eq!(found(&["ben"]), Ok(vec![1]));
        // A former member is called so; one of two devices; and an id begins so.
        for (text, typed) in [("gone", "abd005aa"), ("twin", "its id"), ("abcf", "abcf04aa")] {
            let (code, message) = found(&[text]).unwrap_err();
            assert_eq!(code, tonic::Code::InvalidArgument, "{message}");
            let person = format!("for the person: person:{text}; for");
            assert!(message.contains(&person) && message.contains(typed), "{message}");
        }
        for text in ["person:", "person:nobody", "nobody"] {
            assert_eq!(found(&[text]).unwrap_err().0, tonic::Code::NotFound, "{text}");
        }
    }

    #[test]
    fn an_invite_is_found_by_key_and_by_ticket() {
        let ticket = Ticket::new(GroupId::new([7; 32]), [8; 32], Vec::new());
        let report = |key| InviteReport {
            key,
            role: Role::Editor,
            scopes: Scopes::whole(),
            person: None,
            by: DeviceId::new([1; 32]),
            expires_ms: None,
            max_uses: 1,
            uses: 0,
            is_open: true,
        };
        let key = invite_key(&ticket);
        let known = [report([0xab; 32]), report(key)];
        assert_eq!(invite(&ticket.to_string(), &known).unwrap(), key);
        assert_eq!(invite("ABAB", &known).unwrap(), [0xab; 32]);
        assert_eq!(invite("aba", &known).unwrap_err().code(), tonic::Code::NotFound);
        assert_eq!(
            invite("p2ps1nonsense", &known).unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
        let twins = [report([0xab; 32]), report([0xab; 32])];
        assert_eq!(
            invite("abab", &twins).unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
    }
}
