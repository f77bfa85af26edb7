//! Passwords: who sends the right one, at a price that tells nobody anything.
//!
//! A bcrypt check is slow by design. So there is one at a time, away from the threads that serve, few may wait for their
//! turn, and what came of it is remembered. A name that nobody has costs as much as one that somebody has.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::Semaphore;

/// Checks that may wait for their turn or be under way; beyond, the answer is 503.
const MAX_WAITING: usize = 32;

/// Verdicts that are remembered, right and wrong ones each.
const MAX_REMEMBERED: usize = 128;

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// Too many wait already.
    Busy,
}

/// Name and password of a request.
pub(super) struct Credentials {
    name: String,
    password: Vec<u8>,
}

/// Checks passwords. Clones share it.
#[derive(Clone)]
pub(super) struct Passwords(Arc<Inner>);

struct Inner {
    /// Made anew by each process, so that what is remembered is no password and nobody can foretell it.
    secret: hmac::Key,
    remembered: Mutex<Remembered>,
    waiting: Semaphore,
    turn: Arc<Semaphore>,
}

/// Tags of checks that were made, the newest last. Wrong ones are kept apart: whoever sends many pushes out no right one.
#[derive(Default)]
struct Remembered {
    right: VecDeque<Tag>,
    wrong: VecDeque<Tag>,
}

type Tag = [u8; 32];

impl Credentials {
    /// Those of the header `Authorization: Basic …`; none if there are none or they make no sense.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let mut name = STANDARD.decode(encoded.trim()).ok()?;
        let password = name.split_off(name.iter().position(|byte| *byte == b':')?);
        Some(Self { name: String::from_utf8(name).ok()?, password: password[1..].into() })
    }
}

// === impl Passwords ===

impl Passwords {
    /// None if the system has no random numbers.
    pub(super) fn new() -> Option<Self> {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new()).ok()?;
        Some(Self(Arc::new(Inner {
            secret,
            remembered: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
            turn: Arc::new(Semaphore::new(1)),
        })))
    }

    /// Whether these are name and password of one of the users.
    pub(super) async fn check(&self, users: &BTreeMap<String, String>, credentials: Credentials) -> Verdict {
        let inner = &self.0;
        let known = users.get(&credentials.name);
        // Nobody of that name: the price is that of a user whom the name picks, always the same one.
        let pick = || users.values().nth(inner.tag(&[credentials.name.as_bytes()])[0] as usize % users.len().max(1));
        let Some(hash) = known.or_else(pick) else { return Verdict::Wrong };
        // Whether the name is known belongs to the question: it may have been before, with the very hash that is picked.
        let is_known = known.is_some();
        let tag = inner.tag(&[&[is_known.into()], credentials.name.as_bytes(), hash.as_bytes(), &credentials.password]);
        if let Some(verdict) = inner.recall(&tag) {
            return verdict;
        }
        let Ok(_place) = inner.waiting.try_acquire() else { return Verdict::Busy };
        let Ok(turn) = inner.turn.clone().acquire_owned().await else { return Verdict::Busy };
        // Somebody before may have asked the same.
        if let Some(verdict) = inner.recall(&tag) {
            return verdict;
        }
        let (this, hash) = (self.clone(), hash.clone());
        let check = tokio::task::spawn_blocking(move || {
            let fits = bcrypt::verify(&credentials.password, &hash).unwrap_or(false);
            let verdict = if fits && is_known { Verdict::Right } else { Verdict::Wrong };
            this.0.remember(tag, verdict);
            // Whoever asked may have gone: the turn is over when the work is.
            drop(turn);
            verdict
        });
        check.await.unwrap_or(Verdict::Wrong)
    }
}

impl Inner {
    /// Stands for these words and no others.
    fn tag(&self, words: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.secret);
        for word in words {
            context.update(&(word.len() as u64).to_le_bytes());
            context.update(word);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn recall(&self, tag: &Tag) -> Option<Verdict> {
        let remembered = self.remembered.lock();
        if remembered.right.contains(tag) {
            return Some(Verdict::Right);
        }
        remembered.wrong.contains(tag).then_some(Verdict::Wrong)
    }

    fn remember(&self, tag: Tag, verdict: Verdict) {
        let mut remembered = self.remembered.lock();
        let tags = if verdict == Verdict::Right { &mut remembered.right } else { &mut remembered.wrong };
        if tags.len() == MAX_REMEMBERED {
            tags.pop_front();
        }
        tags.push_back(tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> BTreeMap<String, String> {
        let hash = |password| bcrypt::hash(password, 4).unwrap();
        BTreeMap::from([("ada".into(), hash("engine")), ("bob".into(), hash("builder"))])
    }

    fn credentials(name: &str, password: &str) -> Credentials {
        Credentials { name: name.into(), password: password.into() }
    }

    // The right password of a name, and nothing else: not that of somebody else, none, or more; asked once or again.
    #[tokio::test]
    async fn only_the_right_password_of_a_known_name_is_right() {
        let (passwords, users) = (Passwords::new().unwrap(), users());
        let table = [
            ("ada", "engine", Verdict::Right),
            ("bob", "builder", Verdict::Right),
            ("ada", "builder", Verdict::Wrong),
            ("ada", "", Verdict::Wrong),
            ("ada", "engine2", Verdict::Wrong),
            ("Ada", "engine", Verdict::Wrong),
            ("", "engine", Verdict::Wrong),
            ("eve", "engine", Verdict::Wrong),
            ("eve", "builder", Verdict::Wrong),
        ];
        for _ in 0..2 {
            for (name, password, verdict) in table {
                assert_eq!(passwords.check(&users, credentials(name, password)).await, verdict, "{name} {password}");
            }
        }
    }

    // A password that changes counts at once, whatever is remembered.
    #[tokio::test]
    async fn what_is_remembered_ends_with_the_hash() {
        let (passwords, mut users) = (Passwords::new().unwrap(), users());
        assert_eq!(passwords.check(&users, credentials("ada", "engine")).await, Verdict::Right);
        users.insert("ada".into(), bcrypt::hash("other", 4).unwrap());
        assert_eq!(passwords.check(&users, credentials("ada", "engine")).await, Verdict::Wrong);
        assert_eq!(passwords.check(&users, credentials("ada", "other")).await, Verdict::Right);
        // Also if somebody else has the same hash.
        users.insert("bob".into(), users["ada"].clone());
        users.remove("ada");
        assert_eq!(passwords.check(&users, credentials("ada", "other")).await, Verdict::Wrong);
        assert_eq!(passwords.check(&users, credentials("bob", "other")).await, Verdict::Right);
    }

    // Bounded, and many wrong ones push out no right one.
    #[test]
    fn what_is_remembered_is_bounded() {
        let inner = Passwords::new().unwrap().0;
        let tag = |number: usize| inner.tag(&[&number.to_le_bytes()]);
        inner.remember(tag(0), Verdict::Right);
        (1..1000).for_each(|number| inner.remember(tag(number), Verdict::Wrong));
        assert_eq!((inner.recall(&tag(0)), inner.recall(&tag(999))), (Some(Verdict::Right), Some(Verdict::Wrong)));
        assert_eq!((inner.recall(&tag(1)), inner.remembered.lock().wrong.len()), (None, MAX_REMEMBERED));
    }

    // One check at a time; beyond those that may wait, the answer is that it is busy, at once.
    #[tokio::test]
    async fn only_so_many_checks_wait() {
        let (passwords, users) = (Passwords::new().unwrap(), users());
        let turn = passwords.0.turn.clone().acquire_owned().await.unwrap();
        let checks: Vec<_> = (0..MAX_WAITING)
            .map(|number| {
                let (passwords, users) = (passwords.clone(), users.clone());
                tokio::spawn(async move { passwords.check(&users, credentials("ada", &number.to_string())).await })
            })
            .collect();
        while passwords.0.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(passwords.check(&users, credentials("ada", "engine")).await, Verdict::Busy);
        drop(turn);
        for check in checks {
            assert_eq!(check.await.unwrap(), Verdict::Wrong);
        }
        assert_eq!(passwords.check(&users, credentials("ada", "engine")).await, Verdict::Right);
    }

    // RFC 7617: the scheme in any case, the name up to the first colon.
    #[test]
    fn credentials_are_those_of_the_basic_scheme() {
        let table = [
            (format!("Basic {}", STANDARD.encode("ada:engine")), Some(("ada", "engine"))),
            (format!("bAsIc  {}", STANDARD.encode("ada:en:gine")), Some(("ada", "en:gine"))),
            (format!("Basic {}", STANDARD.encode(":")), Some(("", ""))),
            (format!("Basic {}", STANDARD.encode("ada")), None),
            (format!("Bearer {}", STANDARD.encode("ada:engine")), None),
            ("Basic".into(), None),
            ("Basic !!!!".into(), None),
            (format!("Basic {}", STANDARD.encode(b"\xff:x")), None),
        ];
        for (header, expected) in table {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, header.parse().unwrap())]);
            let found = Credentials::of(&headers);
            let found =
                found.as_ref().map(|found| (found.name.as_str(), std::str::from_utf8(&found.password).unwrap()));
            assert_eq!(found, expected, "{header}");
        }
    }
}
