//! Looks at a running trace for those who ask: who asks at the same time gets the same one.

use crate::{
    host::clock,
    report::Report,
    serve::{
        kills::Killed,
        look::{Ask, Depth, Look},
    },
    trace::session::Session,
};
use anyhow::Result;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The last looks.
#[derive(Default)]
pub(super) struct Looks {
    /// Kills so far.
    pub(super) killed: Arc<Killed>,
    /// The last look that was no look into processes.
    glance: Option<(Arc<Report>, Instant)>,
    /// The last that was one.
    whole: Option<(Arc<Report>, Instant)>,
}

impl Looks {
    /// The report of now and its time, for whoever comes next, too.
    pub(super) fn take(&mut self, depth: Depth, session: &mut Session) -> Result<(Arc<Report>, Instant)> {
        // Before anything is read: what comes meanwhile may not be in it.
        let at = Instant::now();
        let report = Arc::new(match depth {
            Depth::Glance => session.glance()?,
            Depth::Whole => session.report()?,
        });
        let kept = match depth {
            Depth::Glance => &mut self.glance,
            Depth::Whole => &mut self.whole,
        };
        Ok(kept.insert((report, at)).clone())
    }

    /// The youngest report that was taken, however old.
    pub(super) fn last(&self) -> Option<&(Arc<Report>, Instant)> {
        self.glance.iter().chain(&self.whole).max_by_key(|(_, at)| *at)
    }

    /// Gives somebody a look that is not older than what was asked for.
    pub(super) fn answer(&mut self, ask: Ask, session: &mut Session) {
        let look = self.looked(&ask, session);
        ask.answer(look.map_err(|error| format!("{error:#}")));
    }

    fn looked(&mut self, ask: &Ask, session: &mut Session) -> Result<Look> {
        // A look into processes shows all that a glance does.
        let kept = match ask.depth {
            Depth::Glance => [self.glance.as_ref(), self.whole.as_ref()],
            Depth::Whole => [None, self.whole.as_ref()],
        };
        let kept = kept.into_iter().flatten().filter(|(_, at)| *at >= ask.not_before).max_by_key(|(_, at)| *at).cloned();
        let (report, at) = match kept {
            Some(kept) => kept,
            None => self.take(ask.depth, session)?,
        };
        let cpu = Duration::from_nanos(clock::process_cpu_ns());
        Ok(Look { report, at, killed: Arc::clone(&self.killed), whole: self.whole.clone(), cpu })
    }
}
