//! Talking to systemd: ready, what is going on, stopping, still alive. Without systemd all of it does nothing.
//!
//! A message that cannot be sent is worth a line in the log, never a failure: the daemon's work is the folder.

use std::time::Duration;

use sd_notify::NotifyState;

/// A status line is cut to this many bytes; `systemctl status` shows one line.
const MAX_STATUS_LEN: usize = 200;

/// Says that the daemon is ready: the control socket answers and recovery is done.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// Says in a line what the daemon is doing, for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(&one_line(text))]);
}

/// Says that the daemon is stopping.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Says that the daemon is alive; to be called from the event loop itself, so that a loop that hangs is noticed.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// Returns how often to call [`alive`]: half of what systemd asks for (`WatchdogSec=`); `None` if it does not ask.
#[must_use]
pub fn alive_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|limit| limit / 2)
        .filter(|interval| !interval.is_zero())
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "Cannot notify the service manager");
    }
}

fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut end = line.len().min(MAX_STATUS_LEN);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_systemd_nothing_happens() {
        ready();
        status("in sync");
        alive();
        stopping();
    }

    #[test]
    fn a_status_is_one_short_line() {
        assert_eq!(one_line("a\nb"), "a b");
        assert_eq!(one_line(&"\u{e9}".repeat(150)).len(), MAX_STATUS_LEN);
        assert_eq!(
            one_line(&format!("x{}", "\u{e9}".repeat(150))).len(),
            MAX_STATUS_LEN - 1
        );
    }
}
