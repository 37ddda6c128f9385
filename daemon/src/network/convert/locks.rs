//! What is asked of voters, and what they answer.

use p2p_sync_core::ids::{DeviceId, ShortId};
use p2p_sync_core::lock::succession::Report;
use p2p_sync_core::lock::{
    Answer, Claim, Nonce, Request, Resource, Token, Voted, Voter, slots_from_bytes, slots_to_bytes,
};
use p2p_sync_proto::peer::v1 as wire;

use super::{ConvertError, MAX_LOGS, at_most, exact};

/// Bytes of a claim: those of its paths, and its other fields.
const MAX_CLAIM: usize = Claim::MAX_BYTES + (8 << 10);

pub(super) fn request_to_wire(request: Request) -> wire::LockRequest {
    use wire::lock_request::Kind;
    let kind = match request {
        Request::Acquire(claim) => Kind::Acquire(wire::LockAcquire {
            claim: claim.to_bytes(),
        }),
        Request::Renew {
            epoch,
            claim,
            durable,
        } => Kind::Renew(wire::LockRenew {
            epoch,
            claim: claim.to_bytes(),
            durable,
        }),
        Request::Release {
            epoch,
            nonce,
            token,
            last,
        } => Kind::Release(wire::LockRelease {
            epoch,
            nonce: nonce.0.to_vec(),
            token: Some(token_to_wire(token)),
            last,
        }),
        Request::Stand { next } => Kind::Stand(wire::LockStand { next: next.to_vec() }),
        Request::Seal { epoch, next } => Kind::Seal(wire::LockSeal {
            epoch,
            next: next.to_vec(),
        }),
        Request::Unseal { next } => Kind::Unseal(wire::LockUnseal { next: next.to_vec() }),
    };
    wire::LockRequest { kind: Some(kind) }
}

pub(super) fn request_from_wire(message: wire::LockRequest) -> Result<Request, ConvertError> {
    use wire::lock_request::Kind;
    let kind = message.kind.ok_or(UNKNOWN)?;
    Ok(match kind {
        Kind::Acquire(acquire) => Request::Acquire(claim_from_wire(&acquire.claim)?),
        Kind::Renew(renew) => Request::Renew {
            epoch: renew.epoch,
            claim: claim_from_wire(&renew.claim)?,
            durable: renew.durable,
        },
        Kind::Release(release) => Request::Release {
            epoch: release.epoch,
            nonce: Nonce(exact("nonce", &release.nonce)?),
            token: token_from_wire(release.token)?,
            last: release.last,
        },
        Kind::Stand(stand) => Request::Stand {
            next: exact("next", &stand.next)?,
        },
        Kind::Seal(seal) => Request::Seal {
            epoch: seal.epoch,
            next: exact("next", &seal.next)?,
        },
        Kind::Unseal(unseal) => Request::Unseal {
            next: exact("next", &unseal.next)?,
        },
    })
}

pub(super) fn response_to_wire(voted: Voted) -> wire::LockResponse {
    use wire::LockRefusal as Refusal;
    use wire::lock_response::Kind;
    let refused = |refusal: Refusal| Kind::Refused(refusal.into());
    let signature = voted.sig.map(|sig| sig.to_vec()).unwrap_or_default();
    let kind = match voted.answer {
        Answer::Granted => Kind::Granted(wire::LockGranted {
            signature,
            has: voted.has.into_iter().map(size_to_wire).collect(),
        }),
        Answer::Busy {
            holder,
            token,
            resources,
        } => Kind::Busy(wire::LockBusy {
            holder: holder.as_bytes().to_vec(),
            token: Some(token_to_wire(token)),
            resources: resources.iter().map(Resource::to_bytes).collect(),
        }),
        Answer::Stale { floor } => Kind::Stale(floor),
        Answer::WrongEpoch { epoch } => Kind::WrongEpoch(epoch),
        Answer::Sealed { next } => Kind::Sealed(next.to_vec()),
        Answer::Denied => refused(Refusal::Denied),
        Answer::NotYet => refused(Refusal::NotYet),
        Answer::Full => refused(Refusal::Full),
        Answer::Forgot => refused(Refusal::Forgot),
        Answer::Gone => refused(Refusal::Gone),
        Answer::Done => Kind::Done(wire::Ack {}),
        Answer::Reported(report) => Kind::Reported(wire::LockReported {
            epoch: report.epoch,
            next: report.next.to_vec(),
            slots: slots_to_bytes(&report.slots),
            signature,
        }),
    };
    wire::LockResponse { kind: Some(kind) }
}

pub(super) fn response_from_wire(message: wire::LockResponse) -> Result<Voted, ConvertError> {
    use wire::LockRefusal as Refusal;
    use wire::lock_response::Kind;
    let answer = match message.kind.ok_or(UNKNOWN)? {
        Kind::Granted(granted) => return granted_from_wire(granted),
        Kind::Reported(reported) => return reported_from_wire(&reported),
        Kind::Busy(busy) => busy_from_wire(busy)?,
        Kind::Stale(floor) => Answer::Stale { floor },
        Kind::WrongEpoch(epoch) => Answer::WrongEpoch { epoch },
        Kind::Sealed(next) => Answer::Sealed {
            next: exact("sealed", &next)?,
        },
        Kind::Refused(refusal) => match Refusal::try_from(refusal) {
            Ok(Refusal::Denied) => Answer::Denied,
            Ok(Refusal::NotYet) => Answer::NotYet,
            Ok(Refusal::Full) => Answer::Full,
            Ok(Refusal::Forgot) => Answer::Forgot,
            Ok(Refusal::Gone) => Answer::Gone,
            Ok(Refusal::Unspecified) | Err(_) => return Err(UNKNOWN),
        },
        Kind::Done(wire::Ack {}) => Answer::Done,
    };
    Ok(Voted::from(answer))
}

const UNKNOWN: ConvertError = ConvertError::UnknownKind {
    message: "message about a lock",
};

fn granted_from_wire(granted: wire::LockGranted) -> Result<Voted, ConvertError> {
    at_most("has", granted.has.len(), MAX_LOGS)?;
    let read = |size: wire::LogSize| Ok((ShortId::from_slice(&size.device)?, size.size));
    let has = granted
        .has
        .into_iter()
        .map(read)
        .collect::<Result<Vec<_>, ConvertError>>()?;
    if !has.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(ConvertError::Unsorted { field: "has" });
    }
    let sig = match granted.signature.as_slice() {
        [] => None,
        bytes => Some(exact("signature", bytes)?),
    };
    Ok(Voted {
        answer: Answer::Granted,
        sig,
        has,
    })
}

fn reported_from_wire(reported: &wire::LockReported) -> Result<Voted, ConvertError> {
    at_most("slots", reported.slots.len(), Voter::MAX_REPORT)?;
    let report = Report {
        epoch: reported.epoch,
        next: exact("next", &reported.next)?,
        slots: slots_from_bytes(&reported.slots).map_err(|_| MALFORMED)?,
    };
    Ok(Voted {
        sig: Some(exact("signature", &reported.signature)?),
        ..Voted::from(Answer::Reported(report))
    })
}

fn busy_from_wire(busy: wire::LockBusy) -> Result<Answer, ConvertError> {
    at_most("resources", busy.resources.len(), Claim::MAX_RESOURCES)?;
    let read = |bytes: &Vec<u8>| Resource::parse(bytes).map_err(|_| MALFORMED);
    let resources = busy
        .resources
        .iter()
        .map(read)
        .collect::<Result<Vec<_>, ConvertError>>()?;
    if !resources.is_sorted_by(|a, b| a < b) {
        return Err(ConvertError::Unsorted { field: "resources" });
    }
    Ok(Answer::Busy {
        holder: DeviceId::from_slice(&busy.holder)?,
        token: token_from_wire(busy.token)?,
        resources,
    })
}

const MALFORMED: ConvertError = ConvertError::UnknownKind { message: "claim" };

fn claim_from_wire(bytes: &[u8]) -> Result<Claim, ConvertError> {
    at_most("claim", bytes.len(), MAX_CLAIM)?;
    Claim::from_bytes(bytes).map_err(|_| MALFORMED)
}

const fn token_to_wire(token: Token) -> wire::LockToken {
    wire::LockToken {
        epoch: token.epoch,
        n: token.n,
    }
}

fn token_from_wire(token: Option<wire::LockToken>) -> Result<Token, ConvertError> {
    let token = token.ok_or(MALFORMED)?;
    Ok(Token {
        epoch: token.epoch,
        n: token.n,
    })
}

fn size_to_wire((device, size): (ShortId, u64)) -> wire::LogSize {
    wire::LogSize {
        device: device.as_bytes().to_vec(),
        size,
    }
}
