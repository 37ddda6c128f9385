//! The service over real connections on loopback. Time-outs only guard against hanging.

mod harness;
mod stranger;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt};
use p2p_sync_core::engine::{RefuseReason, Request, RequestId, Response};
use p2p_sync_core::ids::DeviceId;

use self::harness::{Node, announcement, members, within};
use super::{NetworkCommand, NetworkEvent, OpenError};

#[tokio::test]
async fn members_exchange_requests() {
    let (mut a, mut b) = connected_members().await;
    let request = Request::Heads { digest: [7; 32] };
    a.ask(&b, 1, request.clone()).await;
    let (from, id, asked) = b.request().await;
    assert_eq!((from, asked), (a.device, request));
    b.tell(NetworkCommand::Respond {
        id,
        response: Response::Same,
    })
    .await;
    assert_eq!(a.response(1).await, Ok(Response::Same));
}

#[tokio::test]
async fn members_hear_broadcasts() {
    let (a, mut b) = connected_members().await;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let received = within(async {
        for seq in 0.. {
            tick.tick().await;
            a.tell(NetworkCommand::Gossip(announcement(&a, seq))).await;
            // The subscription of the other side may not have arrived yet.
            if let Some(NetworkEvent::Gossip { from, .. }) = b.try_next() {
                return from;
            }
        }
        unreachable!()
    })
    .await;
    assert_eq!(received, a.device);
}

#[tokio::test]
async fn members_open_streams_to_each_other() {
    let (mut a, mut b) = connected_members().await;
    for round in 0..20_u8 {
        let (from, to) = if round % 2 == 0 {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        let mut stream = from.streams.open(to.device).await.unwrap();
        stream.write_all(&[round]).await.unwrap();
        stream.close().await.unwrap();
        let (opener, mut inbound) = to.stream().await;
        let mut bytes = Vec::new();
        within(inbound.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!((opener, bytes), (from.device, vec![round]));
    }
}

#[tokio::test]
async fn whoever_is_not_connected_is_not_asked() {
    let (mut a, b) = (Node::start(1), Node::start(2));
    a.ask(&b, 5, Request::JoinHello).await;
    a.ask(&b, 6, Request::Heads { digest: [0; 32] }).await;
    assert!(a.response(5).await.is_err());
    assert!(a.response(6).await.is_err());
    assert!(matches!(
        a.streams.open(b.device).await,
        Err(OpenError::NotConnected)
    ));
}

#[tokio::test]
async fn a_member_that_does_not_take_us_for_one_refuses_and_can_be_presented_to() {
    let (mut a, mut b) = (Node::start(1), Node::start(2));
    a.tell(members(&[&b])).await;
    a.dial(&mut b).await;
    assert!(a.connected(&b).await, "a member here");
    assert!(!b.connected(&a).await, "none there");
    a.ask(&b, 1, Request::Heads { digest: [0; 32] }).await;
    assert!(a.response(1).await.is_err());
    assert!(matches!(
        a.streams.open(b.device).await,
        Err(OpenError::Unsupported)
    ));
    a.ask(&b, 2, Request::Present { events: Vec::new() }).await;
    let (_, id, _) = b.request().await;
    b.tell(members(&[&a])).await;
    b.tell(NetworkCommand::Respond {
        id,
        response: Response::Ack,
    })
    .await;
    assert_eq!(a.response(2).await, Ok(Response::Ack));
    assert!(b.connected(&a).await);
    can_ask(&mut a, &mut b).await;
}

#[tokio::test]
async fn a_joiner_gets_its_answer_and_then_a_members_connection() {
    let (mut a, mut b) = (Node::start(1), Node::start(2));
    b.dial(&mut a).await;
    assert!(!b.connected(&a).await);
    assert!(!a.connected(&b).await);
    let name = "b".to_owned();
    b.ask(&a, 1, Request::JoinTrustLan { name }).await;
    let (_, id, _) = a.request().await;
    a.tell(members(&[&b])).await;
    let accepted = Response::Accepted { events: Vec::new() };
    a.tell(NetworkCommand::Respond {
        id,
        response: accepted.clone(),
    })
    .await;
    assert_eq!(b.response(1).await, Ok(accepted));
    b.tell(members(&[&a])).await;
    while !a.connected(&b).await {}
    while !b.connected(&a).await {}
    can_ask(&mut b, &mut a).await;
}

#[tokio::test]
async fn a_former_member_is_cut_off() {
    let (mut b, mut a) = connected_members().await;
    a.tell(members(&[])).await;
    b.disconnected(&a).await;
    a.disconnected(&b).await;
    b.connected(&a).await;
    b.ask(&a, 1, Request::Heads { digest: [0; 32] }).await;
    assert!(b.response(1).await.is_err());
    assert!(b.streams.open(a.device).await.is_err());
    assert!(matches!(
        a.streams.open(b.device).await,
        Err(OpenError::NotConnected)
    ));
}

#[tokio::test]
async fn a_device_that_restarts_is_found_again() {
    let (mut a, mut b) = connected_members().await;
    let address = b.address().await;
    b.stop().await;
    a.disconnected(&b).await;
    let mut b = Node::start_with(2, |config| config.listen = vec![address]);
    b.tell(members(&[&a])).await;
    while !a.connected(&b).await {}
    while !b.connected(&a).await {}
    can_ask(&mut a, &mut b).await;
}

#[tokio::test]
async fn a_member_that_dialled_us_is_dialled_when_it_is_lost() {
    let (mut a, mut b) = connected_members().await;
    // b learns by identify where a listens, though only a dialled.
    b.tell(NetworkCommand::Disconnect(a.device)).await;
    a.disconnected(&b).await;
    b.disconnected(&a).await;
    while !a.connected(&b).await {}
    can_ask(&mut a, &mut b).await;
}

#[tokio::test]
async fn a_disconnected_device_comes_back_and_a_forgotten_address_does_not() {
    let (mut a, mut b) = (Node::start(1), Node::start(2));
    let address = b.address().await.to_string();
    a.tell(NetworkCommand::Dial {
        address: address.clone(),
    })
    .await;
    a.connected(&b).await;
    a.tell(NetworkCommand::Forget { address }).await;
    a.tell(NetworkCommand::Disconnect(b.device)).await;
    a.disconnected(&b).await;
    a.ask(&b, 1, Request::JoinHello).await;
    assert!(a.response(1).await.is_err());
}

#[tokio::test]
async fn a_host_name_is_looked_up() {
    let (mut a, mut b) = (Node::start(1), Node::start(2));
    let numeric = b.address().await.to_string();
    let address = numeric.replace("/ip4/127.0.0.1/", "/dns4/localhost/");
    assert_ne!(address, numeric);
    a.tell(NetworkCommand::Dial { address }).await;
    a.connected(&b).await;
}

#[tokio::test]
async fn joins_beyond_eight_are_told_to_come_back() {
    let mut a = Node::start(1);
    let mut busy = 0;
    let mut admitted = Vec::new();
    for byte in 2..5 {
        let mut joiner = Node::start(byte);
        joiner.dial(&mut a).await;
        joiner.connected(&a).await;
        for id in 0..4 {
            joiner.ask(&a, id, Request::JoinHello).await;
        }
        if byte < 4 {
            for _ in 0..4 {
                a.request().await;
            }
            admitted.push(joiner);
            continue;
        }
        for id in 0..4 {
            assert_eq!(
                joiner.response(id).await,
                Ok(Response::Refused(RefuseReason::Busy))
            );
            busy += 1;
        }
    }
    assert_eq!((admitted.len(), busy), (2, 4));
}

#[tokio::test]
async fn commands_are_taken_while_nobody_takes_events() {
    let mut a = Node::start(1);
    let nobody = Node::start(2);
    const MANY: u64 = 2000;
    within(async {
        for id in 0..MANY {
            a.ask(&nobody, id, Request::JoinHello).await;
        }
    })
    .await;
    for id in 0..MANY {
        assert!(a.response(id).await.is_err());
    }
}

#[tokio::test]
async fn a_taken_port_is_given_up_for_a_free_one_only_if_wanted() {
    let mut a = Node::start(1);
    let taken = a.address().await;
    let mut flexible = Node::start_with(2, |config| {
        config.listen = vec![taken.clone()];
        config.fallback_port = true;
    });
    assert_ne!(flexible.address().await, taken);
    let mut strict = Node::start_with(3, |config| config.listen = vec![taken.clone()]);
    let failed = strict
        .next(|event| match event {
            NetworkEvent::ListenFailed { address, .. } => ControlFlow::Break(address),
            other => ControlFlow::Continue(other),
        })
        .await;
    assert_eq!(failed, taken);
}

#[tokio::test]
async fn shutdown_ends_the_task_and_frees_the_port() {
    let mut a = Node::start(1);
    let address = a.address().await;
    a.stop().await;
    let mut again = Node::start_with(1, |config| config.listen = vec![address.clone()]);
    assert_eq!(again.address().await, address);
}

async fn connected_members() -> (Node, Node) {
    let (mut a, mut b) = (Node::start(1), Node::start(2));
    a.tell(members(&[&b])).await;
    b.tell(members(&[&a])).await;
    a.dial(&mut b).await;
    while !a.connected(&b).await {}
    while !b.connected(&a).await {}
    (a, b)
}

/// Asks until it works: connections that are being made anew may take a question down with them.
async fn can_ask(a: &mut Node, b: &mut Node) {
    let request = Request::InSync { digest: [1; 32] };
    within(async {
        for id in 1000.. {
            a.ask(b, id, request.clone()).await;
            let answered = tokio::select! {
                (_, inbound, _) = b.request() => {
                    let response = Response::Ack;
                    b.tell(NetworkCommand::Respond { id: inbound, response }).await;
                    a.response(id).await
                }
                failed = a.response(id) => failed,
            };
            if answered.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn devices(nodes: &[&Node]) -> BTreeSet<DeviceId> {
    nodes.iter().map(|node| node.device).collect()
}

fn request_id(id: u64) -> RequestId {
    RequestId(id)
}
