//! The thread that looks for names on disk. A disk, or a file server behind one, may not answer: then only this thread waits. Questions go to it
//! in order, answers come back when they come, and nobody waits for one longer than they say.

use super::{Named, disk::Disk};
use crate::{cgroup::CgroupPath, host::privileges};
use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel},
    time::{Duration, Instant},
};

/// Most questions that wait.
const MOST_QUESTIONS: usize = 16_384;
/// An answer that takes longer is late.
const LATE: Duration = Duration::from_secs(2);

/// What is to be looked for.
#[derive(Clone, Debug)]
pub struct Question {
    /// The cgroup that it is about.
    pub path: CgroupPath,
    /// Id of its container, if that is to be looked for.
    pub container: Option<String>,
    /// Uid of its pod, if that is to be looked for.
    pub pod: Option<String>,
}

/// What was found.
#[derive(Debug)]
pub struct Answer {
    /// What was looked for.
    pub question: Question,
    /// Of the container.
    pub container: Option<Named>,
    /// Of the pod, by what the kubelet leaves; not looked for where the container tells it.
    pub pod: Option<Named>,
}

/// The thread, which begins with the first question.
#[derive(Debug)]
pub struct Naming {
    root: PathBuf,
    thread: Option<Thread>,
    /// When the questions without an answer were asked, the first one first.
    asked: VecDeque<Instant>,
    /// The last wait was for nothing.
    silent: bool,
}

#[derive(Debug)]
struct Thread {
    questions: SyncSender<Question>,
    /// Without a bound of their own: there are no more than questions.
    answers: Receiver<Answer>,
}

impl Thread {
    fn start(mut find: impl FnMut(Question) -> Answer + Send + 'static) -> std::io::Result<Thread> {
        let ((questions, asked), (found, answers)) = (sync_channel::<Question>(MOST_QUESTIONS), channel());
        std::thread::Builder::new().name("memtrail-names".into()).spawn(move || {
            privileges::keep_only_or_warn(&[privileges::FILES]);
            for question in asked {
                if found.send(find(question)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Thread { questions, answers })
    }
}

fn find(disk: &mut Disk, question: Question) -> Answer {
    let container = question.container.as_ref().map(|id| disk.container(id));
    let told = container.as_ref().is_some_and(|named| named.pod.is_some());
    let pod = question.pod.as_ref().filter(|_| !told).and_then(|uid| disk.pod(uid));
    Answer { question, container, pod }
}

impl Naming {
    /// One whose disk does not answer before the sender is dropped.
    #[cfg(test)]
    pub(super) fn silent() -> std::io::Result<(Naming, std::sync::mpsc::Sender<()>)> {
        let (release, released) = channel::<()>();
        let thread = Thread::start(move |question| {
            // An error says that it may answer.
            let _ = released.recv();
            Answer { question, container: None, pod: None }
        })?;
        Ok((Naming { thread: Some(thread), ..Naming::new(PathBuf::new()) }, release))
    }

    /// Names of the host whose root is at `root`.
    #[must_use]
    pub fn new(root: PathBuf) -> Naming {
        Naming { root, thread: None, asked: VecDeque::new(), silent: false }
    }

    /// Asks. False if there is no room for the question, or nobody to answer it.
    pub fn ask(&mut self, question: Question) -> bool {
        if self.thread.is_none() {
            let mut disk = Disk::new(&self.root);
            match Thread::start(move |question| find(&mut disk, question)) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => {
                    log::warn!("no thread to look for the names of containers: {error}");
                    return false;
                }
            }
        }
        let asked = self.thread.as_ref().is_some_and(|thread| thread.questions.try_send(question).is_ok());
        if asked {
            self.asked.push_back(Instant::now());
        }
        asked
    }

    /// The next answer, if it comes before `until`; one that is there already comes at any time.
    pub fn next(&mut self, until: Instant) -> Option<Answer> {
        if self.asked.is_empty() {
            return None;
        }
        // Whoever did not answer in time is not waited for again before it does.
        let wait = if self.silent { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        match self.thread.as_ref()?.answers.recv_timeout(wait) {
            Ok(answer) => {
                self.asked.pop_front();
                self.silent = false;
                Some(answer)
            }
            Err(RecvTimeoutError::Timeout) => {
                if wait > Duration::ZERO {
                    log::warn!("names of containers are late: a disk or a file server does not answer");
                    self.silent = true;
                }
                None
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Questions whose answer is late.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.asked.iter().filter(|at| at.elapsed() > LATE).count() as u64
    }
}
