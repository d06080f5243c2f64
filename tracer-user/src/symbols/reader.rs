//! A thread that reads in place of one that must not wait: jobs in, answers out, and how long each may take. Knows nothing of symbols.
//!
//! Reading a file can take any time: its server may never answer, and a hostile one may be laid out so that a parser takes for ever. A
//! thread cannot be stopped in either, so a job that takes too long is given up together with its thread, and another thread does the other
//! jobs. There are never more than a few threads that were given up; with so many, nothing is read until one of them comes back. On a machine
//! that is busy with other things a thread is not slow but waits for a CPU: that time is not counted.

use crate::host::proc::schedstat::Schedstat;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

/// Messages that wait for the one who asks: with so many the thread waits too.
const MOST_MESSAGES: usize = 64;

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest time for one job, without that in which its thread wanted a CPU and had none.
    pub longest: Duration,
    /// Most threads that were given up and have not come back.
    pub given_up: usize,
    /// Most jobs that wait.
    pub waiting: usize,
}

/// What became of a job.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<J, A> {
    /// Done.
    Answer(A),
    /// It took too long, or ended its thread.
    GivenUp(J),
}

/// What a job is done by.
pub type Work<J, A> = Arc<dyn Fn(J) -> A + Send + Sync>;

/// The thread, and what it was asked for. `K` names a job of which one at a time is enough.
pub struct Reader<K, J, A> {
    name: &'static str,
    work: Work<J, A>,
    limits: Limits,
    /// How long a thread has waited for a CPU since its start; zero where that is unknown.
    waited: fn(&Schedstat) -> Duration,
    thread: Option<Thread<J, A>>,
    /// In the order in which the thread has them. Kept with their jobs for another thread.
    asked: VecDeque<(K, J)>,
    given_up: Vec<JoinHandle<()>>,
    /// There may be no other thread, and that was said.
    is_exhausted: bool,
}

struct Thread<J, A> {
    jobs: Sender<J>,
    messages: Receiver<Message<A>>,
    handle: JoinHandle<()>,
    /// When it began with the first of those that were asked for.
    began: Option<Began>,
    /// None before its first job, and where the kernel does not tell.
    schedstat: Option<Schedstat>,
}

#[derive(Clone, Copy)]
struct Began {
    at: Instant,
    /// How long it had waited for a CPU by then.
    waited: Duration,
}

enum Message<A> {
    Started(Schedstat),
    Began(Instant),
    Answer(A),
}

impl<K: PartialEq, J: Clone + Send + 'static, A: Send + 'static> Reader<K, J, A> {
    /// One without a thread: it is started with the first job. What a thread has to do first, `work` does.
    pub fn new(name: &'static str, limits: Limits, work: Work<J, A>) -> Reader<K, J, A> {
        Reader {
            name,
            work,
            limits,
            waited: |of| of.waited().unwrap_or_default(),
            thread: None,
            asked: VecDeque::new(),
            given_up: Vec::new(),
            is_exhausted: false,
        }
    }

    /// Asks for a job, unless one of that name is under way or too many are. Whether it was taken.
    pub fn ask(&mut self, key: K, job: J) -> bool {
        if self.asked.len() >= self.limits.waiting || self.is_asked(|other| *other == key) {
            return false;
        }
        if let Some(thread) = &self.thread {
            // A thread that is gone is noticed when its answers are waited for; the job is kept for the next one.
            let _is_gone = thread.jobs.send(job.clone());
        }
        self.asked.push_back((key, job));
        true
    }

    /// Whether a job with such a name is under way.
    pub fn is_asked(&self, mut is_it: impl FnMut(&K) -> bool) -> bool {
        self.asked.iter().any(|(key, _)| is_it(key))
    }

    /// Jobs that are under way.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    /// Takes the answers until all are there, or for that long; `None` is as long as it takes. Whether all are there.
    pub fn wait(&mut self, longest: Option<Duration>, mut take: impl FnMut(K, Outcome<J, A>)) -> bool {
        let end = longest.and_then(|longest| Instant::now().checked_add(longest));
        while !self.asked.is_empty() {
            if !self.has_thread() {
                return false;
            }
            let Some(thread) = &mut self.thread else { return false };
            let stuck = thread.stuck(self.waited, self.limits.longest);
            let next = end.map_or(stuck, |end| end.min(stuck));
            match thread.messages.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Message::Started(schedstat)) => thread.schedstat = Some(schedstat),
                Ok(Message::Began(at)) => {
                    let waited = thread.schedstat.as_ref().map(self.waited).unwrap_or_default();
                    thread.began = Some(Began { at, waited });
                }
                Ok(Message::Answer(answer)) => {
                    thread.began = None;
                    if let Some((key, _)) = self.asked.pop_front() {
                        take(key, Outcome::Answer(answer));
                    }
                }
                // It ended in the middle of a job.
                Err(RecvTimeoutError::Disconnected) => {
                    self.thread = None;
                    if let Some((key, job)) = self.asked.pop_front() {
                        take(key, Outcome::GivenUp(job));
                    }
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() >= thread.stuck(self.waited, self.limits.longest) => {
                    self.given_up.extend(self.thread.take().map(|thread| thread.handle));
                    if let Some((key, job)) = self.asked.pop_front() {
                        take(key, Outcome::GivenUp(job));
                    }
                }
                Err(RecvTimeoutError::Timeout) if end.is_some_and(|end| Instant::now() >= end) => return false,
                // It has had less of a CPU than it seemed.
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        true
    }

    /// Makes sure that there is a thread with all the jobs. False if there may be no other, or none can be started.
    fn has_thread(&mut self) -> bool {
        if self.thread.is_some() {
            return true;
        }
        self.given_up.retain(|thread| !thread.is_finished());
        if self.given_up.len() >= self.limits.given_up {
            if !self.is_exhausted {
                log::warn!("{}: {} threads did not come back: nothing more is read until one does", self.name, self.given_up.len());
            }
            self.is_exhausted = true;
            // Nobody does them, and those who ask will ask again.
            self.asked.clear();
            return false;
        }
        self.is_exhausted = false;
        let (jobs, received) = channel::<J>();
        let (sender, messages) = sync_channel(MOST_MESSAGES);
        let work = Arc::clone(&self.work);
        match Builder::new().name(self.name.to_owned()).spawn(move || run(&received, &sender, &work)) {
            Ok(handle) => {
                for (_, job) in &self.asked {
                    let _is_gone = jobs.send(job.clone());
                }
                self.thread = Some(Thread { jobs, messages, handle, began: None, schedstat: None });
                true
            }
            Err(error) => {
                log::warn!("{}: cannot start a thread: {error}", self.name);
                self.asked.clear();
                false
            }
        }
    }
}

impl<J, A> Thread<J, A> {
    /// When it will have taken too long, as far as is known now.
    fn stuck(&self, waited: fn(&Schedstat) -> Duration, longest: Duration) -> Instant {
        let Some(began) = self.began else { return Instant::now() + longest };
        let waited = self.schedstat.as_ref().map(waited).unwrap_or_default();
        began.at + longest + waited.saturating_sub(began.waited)
    }
}

/// Ends when nobody listens any more: this thread was given up, or the one who asked is gone.
fn run<J, A>(jobs: &Receiver<J>, messages: &SyncSender<Message<A>>, work: &Work<J, A>) {
    // Where the kernel does not tell, all time counts.
    if let Ok(schedstat) = Schedstat::of_this_thread()
        && messages.send(Message::Started(schedstat)).is_err()
    {
        return;
    }
    for job in jobs {
        if messages.send(Message::Began(Instant::now())).is_err() || messages.send(Message::Answer(work(job))).is_err() {
            return;
        }
    }
}

impl<K: std::fmt::Debug, J, A> std::fmt::Debug for Reader<K, J, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let asked: Vec<&K> = self.asked.iter().map(|(key, _)| key).collect();
        f.debug_struct("Reader").field("asked", &asked).field("given_up", &self.given_up.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    };

    const LIMITS: Limits = Limits { longest: Duration::from_millis(400), given_up: 2, waiting: 8 };

    type Outcomes = Vec<(u64, Outcome<u64, u64>)>;

    /// Doors that are opened once.
    #[derive(Default)]
    struct Door(Mutex<bool>, Condvar);

    impl Door {
        fn open(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_all();
        }

        fn pass(&self) {
            drop(self.1.wait_while(self.0.lock().unwrap(), |is_open| !*is_open).unwrap());
        }
    }

    /// A reader that doubles its numbers, and for which odd ones stand behind a door.
    fn doubling(limits: Limits) -> (Reader<u64, u64, u64>, Arc<Door>) {
        let door = Arc::new(Door::default());
        let behind = Arc::clone(&door);
        let work = move |number: u64| {
            if number % 2 == 1 {
                behind.pass();
            }
            assert!(number < 1000, "a job that ends its thread");
            2 * number
        };
        (Reader::new("test-reader", limits, Arc::new(work)), door)
    }

    fn wait(reader: &mut Reader<u64, u64, u64>, longest: Option<Duration>) -> (bool, Outcomes) {
        let mut outcomes = Vec::new();
        let all = reader.wait(longest, |key, outcome| outcomes.push((key, outcome)));
        (all, outcomes)
    }

    #[test]
    fn all_answers_come_in_their_order_and_no_job_is_under_way_twice() {
        let (mut reader, _door) = doubling(LIMITS);
        assert!(reader.ask(2, 2) && reader.ask(4, 4) && !reader.ask(2, 2));
        assert_eq!(wait(&mut reader, None), (true, vec![(2, Outcome::Answer(4)), (4, Outcome::Answer(8))]));
        assert!(reader.ask(2, 2), "done ones can be asked for again");
        assert_eq!(wait(&mut reader, None), (true, vec![(2, Outcome::Answer(4))]));
    }

    #[test]
    fn who_waits_no_longer_gets_the_answer_the_next_time() {
        let limits = Limits { longest: Duration::from_secs(60), ..LIMITS };
        let (mut reader, door) = doubling(limits);
        assert!(reader.ask(1, 1) && reader.ask(2, 2));
        let began = Instant::now();
        assert_eq!(wait(&mut reader, Some(Duration::from_millis(50))), (false, vec![]));
        assert!(began.elapsed() < Duration::from_secs(30));
        door.open();
        assert_eq!(wait(&mut reader, None), (true, vec![(1, Outcome::Answer(2)), (2, Outcome::Answer(4))]));
    }

    #[test]
    fn what_takes_too_long_holds_up_no_other_job() {
        let (mut reader, _door) = doubling(LIMITS);
        for number in [1, 2, 4] {
            assert!(reader.ask(number, number));
        }
        let (all, outcomes) = wait(&mut reader, None);
        assert_eq!((all, outcomes), (true, vec![(1, Outcome::GivenUp(1)), (2, Outcome::Answer(4)), (4, Outcome::Answer(8))]));
    }

    #[test]
    fn time_without_a_cpu_is_not_counted() {
        // Each look at it finds a tenth of a second more: as many looks as it takes for the door to open.
        static WAITED: AtomicU64 = AtomicU64::new(0);
        let (mut reader, door) = doubling(LIMITS);
        reader.waited = |_| Duration::from_millis(WAITED.fetch_add(100, Ordering::Relaxed));
        assert!(reader.ask(1, 1));
        let opener = std::thread::spawn(move || {
            std::thread::sleep(2 * LIMITS.longest);
            door.open();
        });
        assert_eq!(wait(&mut reader, None), (true, vec![(1, Outcome::Answer(2))]));
        opener.join().unwrap();
    }

    #[test]
    fn what_it_waited_before_the_job_does_not_help() {
        let (mut reader, _door) = doubling(LIMITS);
        reader.waited = |_| Duration::from_secs(3600);
        assert!(reader.ask(1, 1));
        assert_eq!(wait(&mut reader, None), (true, vec![(1, Outcome::GivenUp(1))]));
    }

    #[test]
    fn threads_that_were_given_up_are_few_and_one_that_comes_back_makes_room() {
        let (mut reader, door) = doubling(LIMITS);
        for number in [1, 3, 2] {
            assert!(reader.ask(number, number));
        }
        assert_eq!(wait(&mut reader, None), (false, vec![(1, Outcome::GivenUp(1)), (3, Outcome::GivenUp(3))]));
        assert!(reader.ask(2, 2));
        assert_eq!(wait(&mut reader, None), (false, vec![]), "there are two already");
        door.open();
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end && reader.given_up.iter().any(|thread| !thread.is_finished()) {
            std::thread::yield_now();
        }
        assert!(reader.ask(2, 2));
        assert_eq!(wait(&mut reader, None), (true, vec![(2, Outcome::Answer(4))]));
    }

    #[test]
    fn a_thread_that_ends_costs_its_own_job_only() {
        let (mut reader, _door) = doubling(LIMITS);
        assert!(reader.ask(1000, 1000) && reader.ask(2, 2));
        assert_eq!(wait(&mut reader, None), (true, vec![(1000, Outcome::GivenUp(1000)), (2, Outcome::Answer(4))]));
    }

    #[test]
    fn jobs_that_wait_are_bounded() {
        let (mut reader, _door) = doubling(Limits { waiting: 2, ..LIMITS });
        assert!(reader.ask(2, 2) && reader.ask(4, 4) && !reader.ask(6, 6));
    }
}
