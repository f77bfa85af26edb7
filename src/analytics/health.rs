//! How a child fares, in one word, and since when it dies again and again. Pure.
//!
//! A **death** here is what nobody ordered and OTP writes an error report for: every end of a permanent child, every
//! abnormal end, every failed start. A child is **in a loop** when [`LOOP_DEATHS`] deaths fell
//!
//! - into the [`LOOP_WINDOW`] just past (a fast loop), or
//! - into the [`SLOW_LOOP_WINDOW`] just past, and it keeps their pace: the last is no longer ago than
//!   [`SLOW_LOOP_PACE`] times the longest time between two of them, and at most [`SLOW_LOOP_RECENT`] (a slow loop, or one
//!   that waits long between attempts).
//!
//! The pace lets a loop end soon after it was mended: after a fast one the word changes when the window has passed, and
//! not a day later. Numbers and windows are those of the alerts in `dashboards/`.

use std::collections::VecDeque;
use std::time::Duration;

use super::children::ChildState;
use super::history::HistoryEvent;
use crate::event::ChildRef;

/// So many deaths make a loop.
pub const LOOP_DEATHS: usize = 6;

/// Within this time they make a fast loop.
pub const LOOP_WINDOW: Duration = Duration::from_secs(10 * 60);

/// Within this time they make a slow loop. Deaths are also counted, and shown beside a child that recovered, for so long.
pub const SLOW_LOOP_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// A slow loop is over when nothing died for so long.
pub const SLOW_LOOP_RECENT: Duration = Duration::from_secs(6 * 3600);

/// A slow loop is over when nothing died for so many times the longest gap between its newest deaths.
pub const SLOW_LOOP_PACE: u64 = 2;

/// How a child or a supervisor fares. The order is that of trouble: the least is the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// One restart too many: the supervisor gave up. Of a child: its death was that one.
    GaveUp,
    /// It dies again and again (the rule stands above), whether it happens to be up now or not.
    Looping,
    /// Its last run or start failed, and it stays down.
    Failed,
    /// Its node is not heard: nobody knows how it fares. What else is shown of it is what was known last.
    Silent,
    /// It is being started, or waits until those before it have started.
    Starting,
    /// It died and is about to be started again.
    Restarting,
    /// It was told to stop.
    Stopping,
    /// It runs, but died within the [`SLOW_LOOP_WINDOW`].
    Recovered,
    /// It is down because somebody wanted so, or because it was done.
    Stopped,
    /// It runs, and did not die within the [`SLOW_LOOP_WINDOW`].
    Ok,
}

/// A loop that a child is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looping {
    /// Its first death, in milliseconds since the Unix epoch; for showing only.
    pub since: u64,
    /// The same in monotonic nanoseconds, as [`HistoryEvent::at`].
    pub began_at: u64,
    /// Time since that death.
    pub lasting: Duration,
    /// How long of that time the child was up.
    pub up: Duration,
    /// Deaths in the loop, that first one included.
    pub deaths: u64,
}

/// Why a child is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Down {
    /// On order, or because it was done.
    Wanted,
    /// By its own failure.
    Failed,
    /// By the failure that its supervisor gave up on.
    GaveUp,
}

/// The deaths of one child. Kept only of children that died, because most never do.
#[derive(Clone, Debug)]
pub(super) struct Deaths {
    /// A copy and not an id: in a noisy family the quiet child's last death has left the ring long ago.
    pub(super) last: HistoryEvent,
    /// What the last one died of, whoever dies of it.
    pub(super) reason_fingerprint: u64,
    /// The newest [`LOOP_DEATHS`], oldest first.
    newest: VecDeque<Mark>,
    /// The first death of the loop, as long as one lasts.
    loop_began: Option<Mark>,
    total: Mark,
    tally: Tally,
}

/// A death, and the totals up to and with it.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// In monotonic nanoseconds.
    at: u64,
    /// In milliseconds since the Unix epoch.
    timestamp: u64,
    /// Deaths.
    deaths: u64,
    /// Nanoseconds that the child ran.
    up: u64,
}

/// Deaths by the minute for an hour, by the hour for a day; only minutes and hours that have any take memory.
#[derive(Clone, Debug, Default)]
struct Tally {
    minutes: VecDeque<(u64, u32)>,
    hours: VecDeque<(u64, u32)>,
}

const NANOS_PER_MINUTE: u64 = 60 * 1_000_000_000;
const MINUTES_PER_HOUR: u64 = 60;
const HOURS_PER_DAY: u64 = 24;

// === impl Health ===

impl Health {
    /// Every word, worst first.
    pub const ALL: [Health; 10] = [
        Health::GaveUp,
        Health::Looping,
        Health::Failed,
        Health::Silent,
        Health::Starting,
        Health::Restarting,
        Health::Stopping,
        Health::Recovered,
        Health::Stopped,
        Health::Ok,
    ];

    /// The spelling used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Health::GaveUp => "gave_up",
            Health::Looping => "looping",
            Health::Failed => "failed",
            Health::Silent => "silent",
            Health::Starting => "starting",
            Health::Restarting => "restarting",
            Health::Stopping => "stopping",
            Health::Recovered => "recovered",
            Health::Stopped => "stopped",
            Health::Ok => "ok",
        }
    }

    /// Does a person have to look? The one place that says so, for the page, `status` and `/-/ready`.
    pub const fn is_trouble(self) -> bool {
        match self {
            Health::GaveUp
            | Health::Looping
            | Health::Failed
            | Health::Silent
            | Health::Starting
            | Health::Restarting => true,
            Health::Stopping | Health::Recovered | Health::Stopped | Health::Ok => false,
        }
    }

    /// The word for a child: what it does, why it is down if it is, whether it is in a loop, and how often it died within
    /// the [`SLOW_LOOP_WINDOW`].
    pub(super) fn of_child(state: ChildState, down: Down, is_looping: bool, deaths_day: u64) -> Self {
        match (state, down) {
            (ChildState::Failed, Down::GaveUp) => Health::GaveUp,
            (ChildState::Failed, _) => Health::Failed,
            (ChildState::Stopped, _) => Health::Stopped,
            // In the order to stop, what it did before does not matter any more.
            (ChildState::Stopping, _) => Health::Stopping,
            _ if is_looping => Health::Looping,
            (ChildState::Waiting | ChildState::Starting, _) => Health::Starting,
            (ChildState::Restarting, _) => Health::Restarting,
            (ChildState::Running, _) if deaths_day > 0 => Health::Recovered,
            (ChildState::Running, _) => Health::Ok,
        }
    }

    /// The word for a supervisor that is up: that of its worst child. A child that was stopped is no trouble.
    pub(super) fn of_supervisor(children: impl Iterator<Item = Health>) -> Self {
        children.filter(|child| *child != Health::Stopped).min().unwrap_or(Health::Ok)
    }
}

// === impl Deaths ===

impl Deaths {
    /// Most bytes of the deaths of one child, beside texts: queues that grow by doubling, and the description of the child
    /// in the last one.
    pub(super) const MOST_BYTES: usize = size_of::<Deaths>()
        + size_of::<ChildRef>()
        + 8 * size_of::<Mark>()
        + (64 + 32) * size_of::<(u64, u32)>()
        + 6 * 40;

    /// Of a child whose first death this is, before it is [counted](Self::count).
    pub(super) fn new(last: &HistoryEvent, reason_fingerprint: u64) -> Self {
        Self {
            last: last.clone(),
            reason_fingerprint,
            newest: VecDeque::new(),
            loop_began: None,
            total: Mark::default(),
            tally: Tally::default(),
        }
    }

    /// A run ended, wanted or not. Runs before the first death are not known, and not asked for.
    pub(super) fn ran(&mut self, lifetime: Duration) {
        self.total.up = self.total.up.saturating_add(nanos(lifetime));
    }

    /// Counts the last death; its run has been told before.
    pub(super) fn count(&mut self) {
        self.count_one(self.last.at, self.last.timestamp);
        self.tally.count(self.last.at, 1);
    }

    /// Counts deaths of which nothing else is known. They are taken to have happened at this moment.
    pub(super) fn count_many(&mut self, count: u64, at: u64) {
        let timestamp = self.last.timestamp.saturating_add(at.saturating_sub(self.last.at) / 1_000_000);
        let each = count.min(LOOP_DEATHS as u64);
        self.total.deaths += count - each;
        (0..each).for_each(|_| self.count_one(at, timestamp));
        self.tally.count(at, count);
    }

    fn count_one(&mut self, at: u64, timestamp: u64) {
        if !self.is_loop(at) {
            self.loop_began = None;
        }
        self.total = Mark { at, timestamp, deaths: self.total.deaths + 1, up: self.total.up };
        if self.newest.len() == LOOP_DEATHS {
            self.newest.pop_front();
        }
        self.newest.push_back(self.total);
        if self.is_loop(at) && self.loop_began.is_none_or(|began| self.is_straggler(began)) {
            self.loop_began = self.newest.front().copied();
        }
    }

    /// The loop that the child is in at `now` (monotonic nanoseconds), whose present run has lasted for `uptime`.
    pub(super) fn looping(&self, now: u64, uptime: Duration) -> Option<Looping> {
        let began = self.loop_began.filter(|_| self.is_loop(now))?;
        Some(Looping {
            since: began.timestamp,
            began_at: began.at,
            lasting: Duration::from_nanos(now.saturating_sub(began.at)),
            up: Duration::from_nanos(self.total.up - began.up).saturating_add(uptime),
            deaths: self.total.deaths - began.deaths + 1,
        })
    }

    /// Deaths within the hour before `now`, the whole minute that it begins in included.
    pub(super) fn last_hour(&self, now: u64) -> u64 {
        self.tally.last_hour(now)
    }

    /// Deaths within the day before `now`; of the hour that it begins in all or none.
    pub(super) fn last_day(&self, now: u64) -> u64 {
        self.tally.last_day(now)
    }

    /// Adds to each of the last minutes, the present one last, the deaths that fell into it.
    pub(super) fn add_by_minute(&self, now: u64, minutes: &mut [u32]) {
        let present = now / NANOS_PER_MINUTE;
        for (minute, deaths) in self.tally.minutes.iter().rev() {
            let back = present.saturating_sub(*minute) as usize;
            let Some(slot) = minutes.len().checked_sub(back + 1) else { break };
            minutes[slot] = minutes[slot].saturating_add(*deaths);
        }
    }

    /// Did the death that a loop was said to begin with come long before the fast loop that this is? Two deaths last night
    /// and a hundred in these minutes are a loop of minutes.
    fn is_straggler(&self, began: Mark) -> bool {
        let (Some(oldest), Some(last)) = (self.newest.front(), self.newest.back()) else { return false };
        let window = nanos(LOOP_WINDOW);
        last.deaths - began.deaths < 2 * LOOP_DEATHS as u64
            && last.at - oldest.at <= window
            && oldest.at - began.at > window
    }

    fn is_loop(&self, now: u64) -> bool {
        let (Some(oldest), Some(last)) = (self.newest.front(), self.newest.back()) else { return false };
        if self.newest.len() < LOOP_DEATHS {
            return false;
        }
        let (lasting, quiet) = (now.saturating_sub(oldest.at), now.saturating_sub(last.at));
        let gaps = self.newest.iter().zip(self.newest.iter().skip(1)).map(|(one, next)| next.at - one.at);
        let pace = gaps.max().unwrap_or(0).saturating_mul(SLOW_LOOP_PACE).min(nanos(SLOW_LOOP_RECENT));
        lasting <= nanos(LOOP_WINDOW) || lasting <= nanos(SLOW_LOOP_WINDOW) && quiet <= pace
    }
}

// === impl Tally ===

impl Tally {
    fn count(&mut self, at: u64, deaths: u64) {
        let minute = at / NANOS_PER_MINUTE;
        while let Some((old, count)) = self.minutes.pop_front_if(|(counted, _)| *counted + MINUTES_PER_HOUR < minute) {
            let hour = old / MINUTES_PER_HOUR;
            add(&mut self.hours, hour, count);
        }
        while self.hours.pop_front_if(|(hour, _)| *hour + HOURS_PER_DAY < minute / MINUTES_PER_HOUR).is_some() {}
        add(&mut self.minutes, minute, u32::try_from(deaths).unwrap_or(u32::MAX));
    }

    fn last_hour(&self, now: u64) -> u64 {
        let from = (now / NANOS_PER_MINUTE).saturating_sub(MINUTES_PER_HOUR);
        sum(&self.minutes, from)
    }

    fn last_day(&self, now: u64) -> u64 {
        let minute = now / NANOS_PER_MINUTE;
        // An hour that the day begins in the second half of has more of it outside than inside.
        let from = (minute + MINUTES_PER_HOUR / 2) / MINUTES_PER_HOUR;
        let since = minute.saturating_sub(HOURS_PER_DAY * MINUTES_PER_HOUR);
        sum(&self.minutes, since) + sum(&self.hours, from.saturating_sub(HOURS_PER_DAY))
    }
}

fn add(counts: &mut VecDeque<(u64, u32)>, slot: u64, more: u32) {
    match counts.back_mut() {
        Some((newest, count)) if *newest == slot => *count = count.saturating_add(more),
        _ => counts.push_back((slot, more)),
    }
}

fn sum(counts: &VecDeque<(u64, u32)>, from: u64) -> u64 {
    counts.iter().rev().take_while(|(slot, _)| *slot >= from).map(|(_, count)| u64::from(*count)).sum()
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
