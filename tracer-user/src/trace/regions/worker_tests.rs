use super::*;
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::Duration,
};

/// Process 2 answers when it is told to; every other one is this very process.
fn surveying() -> (Surveying, std::sync::mpsc::Sender<()>) {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let reader = move |tgid: u32, _: Option<u64>, reserved: &[Claim]| {
        if tgid == 2 {
            // An error says that the test is over.
            let _ = released.lock().unwrap().recv();
        }
        Survey::of_process(&proc::Process::own()?, reserved)
    };
    (Surveying::start_with(Arc::new(reader)).unwrap(), release)
}

/// The processes that were read until there was no more, and those of which it was asked what they share.
fn outcome(mut reading: Reading, messages: &Receiver<Message>) -> (Vec<(usize, u32)>, Vec<usize>) {
    let (mut read, mut shared) = (Vec::new(), Vec::new());
    loop {
        match messages.recv_timeout(Duration::from_millis(20)) {
            Ok(Message::Read { number, tgid, .. }) => read.push((number, tgid)),
            Ok(Message::Shared(number, _)) => shared.push(number),
            Ok(Message::Gone) => panic!("this process is there"),
            Ok(Message::Done) => return (read, shared),
            Err(RecvTimeoutError::Timeout) => assert!(reading.goes_on(clock::monotonic_ns()), "{read:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("{read:?}"),
        }
    }
}

#[test]
fn a_process_that_does_not_answer_holds_up_nobody_and_is_asked_again_once_it_has() {
    let (surveying, release) = surveying();
    let begin = || {
        let (sender, messages) = sync_channel(16);
        (surveying.begin(Work::of([1, 2, 3].into_iter(), sender)).unwrap(), messages)
    };
    let (reading, messages) = begin();
    let began = std::time::Instant::now();
    assert_eq!(outcome(reading, &messages), (vec![(0, 1), (1, 3)], vec![0, 1]));
    assert!(began.elapsed() >= Duration::from_nanos(PATIENCE_NS), "it was waited for");
    assert!(surveying.busy_ns() < PATIENCE_NS, "that is no time spent reading");
    let (reading, messages) = begin();
    let began = std::time::Instant::now();
    assert_eq!(outcome(reading, &messages).0, [(0, 1), (1, 3)]);
    assert!(began.elapsed() < Duration::from_nanos(PATIENCE_NS), "known as silent, it was not asked again");
    drop(release);
    while lock(&surveying.silent).contains(&2) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (reading, messages) = begin();
    assert_eq!(outcome(reading, &messages).0, [(0, 1), (1, 2), (2, 3)]);
}

#[test]
fn with_many_silent_processes_none_is_read() {
    let (surveying, _release) = surveying();
    lock(&surveying.silent).extend(100..100 + MOST_SILENT as u32);
    let (sender, _messages) = sync_channel(16);
    assert!(surveying.begin(Work::of([1].into_iter(), sender)).is_none());
}
