//! Passwords: who sends the right one, at a price that tells a stranger nothing.
//!
//! A bcrypt check is slow by design. So there is one at a time, on a thread that does not serve, the origins of the requests
//! take turns, and what came of a check is remembered. A name that no user has costs as much as one that a user has.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::oneshot;

use super::turns::{Origin, Turns};

/// Checks of one origin that may wait for their turn; beyond, the answer is 503. At the usual cost a check takes a quarter of
/// a second.
const MAX_WAITING_OF_ORIGIN: usize = 64;

/// Checks that may wait for their turn, of all origins together.
const MAX_WAITING: usize = 256;

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
    checks: Mutex<Checks>,
}

struct Checks {
    waiting: Turns<Check>,
    /// Is a thread at work?
    under_way: bool,
}

/// A check that waits. It is made even if no asker waits for it any more, so that a scraper with little patience is let in
/// when it comes again.
struct Check {
    tag: Tag,
    password: Vec<u8>,
    hash: String,
    is_known: bool,
    askers: Vec<oneshot::Sender<Verdict>>,
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
            checks: Mutex::new(Checks { waiting: Turns::new(MAX_WAITING_OF_ORIGIN, MAX_WAITING), under_way: false }),
        })))
    }

    /// Whether these are name and password of one of the users.
    pub(super) async fn check(
        &self,
        users: &BTreeMap<String, String>,
        credentials: Credentials,
        origin: Origin,
    ) -> Verdict {
        let inner = &self.0;
        let Credentials { name, password } = credentials;
        let known = users.get(&name);
        // An unknown name costs as much as the user whom the name picks, always the same one.
        let pick = || users.values().nth(inner.tag(&[name.as_bytes()])[0] as usize % users.len().max(1));
        let Some(hash) = known.or_else(pick) else { return Verdict::Wrong };
        // Whether the name is known belongs to the question: it may have been before, with the very hash that is picked.
        let is_known = known.is_some();
        let tag = inner.tag(&[&[is_known.into()], name.as_bytes(), hash.as_bytes(), &password]);
        if let Some(verdict) = inner.recall(&tag) {
            return verdict;
        }
        let (asker, verdict) = oneshot::channel();
        let check = Check { tag, password, hash: hash.clone(), is_known, askers: vec![asker] };
        if self.wait(check, origin) {
            let this = self.clone();
            tokio::task::spawn_blocking(move || this.make_checks());
        }
        // One that had to make room for another is dropped.
        verdict.await.unwrap_or(Verdict::Busy)
    }

    /// Has a check wait for its turn, or joins one that asks the same. True if no thread is at work that will make it.
    fn wait(&self, mut check: Check, origin: Origin) -> bool {
        let mut checks = self.0.checks.lock();
        if let Some(same) = checks.waiting.iter_mut().find(|other| other.tag == check.tag) {
            same.askers.append(&mut check.askers);
            return false;
        }
        let waits = checks.waiting.push(origin, check).is_ok();
        waits && !std::mem::replace(&mut checks.under_way, true)
    }

    /// Makes one check after the other until none waits.
    fn make_checks(&self) {
        loop {
            let next = {
                let mut checks = self.0.checks.lock();
                let next = checks.waiting.take();
                checks.under_way = next.is_some();
                next
            };
            let Some(check) = next else { return };
            // An asker may have come while the same was being checked.
            let verdict = self.0.recall(&check.tag).unwrap_or_else(|| {
                let fits = bcrypt::verify(&check.password, &check.hash).unwrap_or(false);
                let verdict = if fits && check.is_known { Verdict::Right } else { Verdict::Wrong };
                self.0.remember(check.tag, verdict);
                verdict
            });
            for asker in check.askers {
                let _ = asker.send(verdict);
            }
        }
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

    const HERE: Origin = Origin::NONE;

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
                assert_eq!(
                    passwords.check(&users, credentials(name, password), HERE).await,
                    verdict,
                    "{name} {password}"
                );
            }
        }
    }

    // A password that changes counts at once, whatever is remembered.
    #[tokio::test]
    async fn what_is_remembered_ends_with_the_hash() {
        let (passwords, mut users) = (Passwords::new().unwrap(), users());
        assert_eq!(passwords.check(&users, credentials("ada", "engine"), HERE).await, Verdict::Right);
        users.insert("ada".into(), bcrypt::hash("other", 4).unwrap());
        assert_eq!(passwords.check(&users, credentials("ada", "engine"), HERE).await, Verdict::Wrong);
        assert_eq!(passwords.check(&users, credentials("ada", "other"), HERE).await, Verdict::Right);
        // Also if somebody else has the same hash.
        users.insert("bob".into(), users["ada"].clone());
        users.remove("ada");
        assert_eq!(passwords.check(&users, credentials("ada", "other"), HERE).await, Verdict::Wrong);
        assert_eq!(passwords.check(&users, credentials("bob", "other"), HERE).await, Verdict::Right);
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

    // An origin that sends many wrong passwords waits for itself. Another one is answered at its turn, and beyond what may
    // wait the answer is that it is busy.
    #[tokio::test]
    async fn many_wrong_passwords_of_one_origin_lock_out_no_other() {
        let passwords = Passwords::new().unwrap();
        let users = BTreeMap::from([("ada".to_owned(), bcrypt::hash("engine", 8).unwrap())]);
        let origin = |address: &str| Origin::of(address.parse().unwrap());
        let check = |password: &str, origin| {
            let (passwords, users, asked) = (passwords.clone(), users.clone(), credentials("ada", password));
            tokio::spawn(async move { passwords.check(&users, asked, origin).await })
        };
        let wrong = (0..2 * MAX_WAITING_OF_ORIGIN).map(|number| check(&number.to_string(), origin("192.0.2.1")));
        let wrong: Vec<_> = wrong.collect();
        tokio::task::yield_now().await;
        assert_eq!(check("engine", origin("192.0.2.2")).await.unwrap(), Verdict::Right);
        let waiting = wrong.iter().filter(|check| !check.is_finished()).count();
        assert!(waiting > MAX_WAITING_OF_ORIGIN / 2, "only {waiting} still wait");
        let mut busy = 0;
        for check in wrong {
            match check.await.unwrap() {
                Verdict::Busy => busy += 1,
                verdict => assert_eq!(verdict, Verdict::Wrong),
            }
        }
        assert!((1..=MAX_WAITING_OF_ORIGIN).contains(&busy), "{busy}");
    }

    // A check is made even if its asker has gone, so a scraper that waits less long than others cause is let in at last.
    #[tokio::test]
    async fn a_check_is_made_though_its_asker_has_gone() {
        let (passwords, users) = (Passwords::new().unwrap(), users());
        let asked = passwords.check(&users, credentials("ada", "engine"), HERE);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, asked).await.is_err());
        let known = || passwords.0.remembered.lock().right.len();
        for _ in 0..1000 {
            if known() == 1 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        panic!("it was not made");
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
