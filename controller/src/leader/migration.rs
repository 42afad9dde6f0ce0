//! One migration from where it is to its end. What comes next is the core's course; this asks,
//! waits, and measures.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use godwit_core::{
    Act, Ask, Course, Migration, Record, RecoveredBy, Side, State, Step, Written, nothing_left,
    operation,
};
use godwit_proto::pause;
use godwit_types::{FailureKind, FreezeStep, MigrationId, Outcome, Phase};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    Leader,
    answer::{Heard, answer},
    images::{Brought, bring_for},
    sessions::AskError,
};
use crate::{ids, raft::ProposeError};

const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long a destination that is in contact may take to discard before the source runs again.
const CLEARING: Duration = Duration::from_secs(10);

/// How insisting ended.
enum Insisted {
    Done(Outcome),
    /// The host answered that there is nothing to do it with.
    NothingLeft,
    /// The destination's definite word, with its reason.
    NeverResumed(String),
    /// By another's command, after the commit.
    TakenBack,
}

struct Drive<'a> {
    leader: &'a Arc<Leader>,
    course: Course,
    freeze_began: Option<Instant>,
    /// The leader's own steps, written down with the next phase.
    own_steps: Vec<FreezeStep>,
}

/// Runs until the migration is final, or the state can't be written.
pub(super) async fn drive(leader: &Arc<Leader>, id: &MigrationId) {
    let Some(migration) = leader.state().migrations.get(id).cloned() else {
        return;
    };
    if migration.phase != Phase::Pending {
        info!(migration = %id, phase = %migration.phase, "migration goes on");
    }
    let mut drive = Drive {
        leader,
        course: Course::new(migration),
        freeze_began: None,
        own_steps: Vec::new(),
    };
    loop {
        let state = leader.state();
        drive.look(&state);
        let step = drive.course.step(&state);
        let result = match step {
            Step::Ask { ask, reaches } if drive.course.migration().phase.is_committed() => {
                drive.forward(ask, reaches).await
            }
            Step::Ask { ask, reaches } => drive.attempt(ask, reaches).await,
            Step::Commit => drive.commit().await,
            Step::Undo(asks) => drive.undo(asks).await,
            Step::Impossible(reason) if drive.course.migration().phase == Phase::Aborting => {
                warn!(migration = %id, reason, "nothing left to undo");
                drive.advance(Phase::Aborted, Record::default()).await
            }
            Step::Impossible(reason) => drive.abort(reason.to_owned(), None).await,
            Step::Finished => {
                leader.progress.forget(id);
                leader.waits.forget(id);
                return;
            }
        };
        if let Err(reason) = result {
            // Another leader takes it from what is stored, or this one does after a pause.
            warn!(migration = %id, %reason, "migration is left as it is stored");
            return;
        }
    }
}

impl Drive<'_> {
    fn migration(&self) -> &Migration {
        self.course.migration()
    }

    /// Before the commit: one attempt, and a failure aborts.
    async fn attempt(&mut self, ask: Ask, reaches: Option<Phase>) -> Result<(), ProposeError> {
        let act = ask.act;
        if act == Act::Prepare {
            match self.bring_image().await {
                Brought::Done => {}
                Brought::TakenBack => {
                    self.look(&self.leader.state());
                    return Ok(());
                }
                Brought::Failed(error) => {
                    let kind = match &error {
                        AskError::Failed(failure) => Some(failure.kind),
                        AskError::HostDown(_) => None,
                    };
                    return self.abort(format!("bring-image: {error}"), kind).await;
                }
            }
        }
        let mut record = Record::default();
        if act == Act::Freeze {
            self.freeze_began = Some(Instant::now());
            record.freeze_started_ms = Some(ids::now_ms());
        }
        let heard = answer(self.leader, self.migration(), ask).await;
        if act == Act::PreCopy {
            self.leader.progress.forget(&self.migration().id);
        }
        let outcome = match heard {
            Heard::Outcome(outcome) => outcome,
            Heard::Failed { reason, kind } => return self.abort(reason, kind).await,
            Heard::TakenBack => {
                self.look(&self.leader.state());
                return Ok(());
            }
        };
        if let Outcome::Frozen { steps } = &outcome {
            // What the source did before it stopped anything is no part of the freeze.
            let running = steps
                .iter()
                .filter(|step| step.running)
                .map(|step| step.micros);
            let running = Duration::from_micros(running.sum());
            self.freeze_began = self.freeze_began.map(|began| began + running);
        }
        match self.course.answered(act, reaches, outcome, record) {
            Written::Not => Ok(()),
            Written::Detached(command) => {
                self.leader.raft.propose_detached(&command);
                Ok(())
            }
            Written::Awaited(phase, record) => self.advance(phase, record).await,
        }
    }

    /// What the destination lacks of the image, from the hosts that have it.
    async fn bring_image(&self) -> Brought {
        let state = self.leader.state();
        let migration = self.migration();
        match state.containers.get(&migration.container) {
            Some(container) => {
                let image = &container.spec.image_id;
                bring_for(self.leader, &migration.id, &migration.to, image).await
            }
            // The step says so.
            None => Brought::Done,
        }
    }

    /// After the commit: again and again, since only forward leads out.
    async fn forward(&mut self, ask: Ask, reaches: Option<Phase>) -> Result<(), ProposeError> {
        let act = ask.act;
        let what = ask.command.verb.name();
        let outcome = match self.unless_taken_back(ask).await {
            Insisted::Done(outcome) => Some(outcome),
            Insisted::NothingLeft => None,
            Insisted::NeverResumed(reason) => return self.take_back(reason).await,
            Insisted::TakenBack => {
                self.look(&self.leader.state());
                return Ok(());
            }
        };
        let mut record = Record {
            steps: std::mem::take(&mut self.own_steps),
            ..Record::default()
        };
        if act == Act::Resume {
            record.freeze_us = self.freeze_us();
            if let Some(Outcome::Resumed { pid, steps }) = outcome {
                record.pid = (pid != 0).then_some(pid);
                record.steps.extend(steps);
            }
        } else {
            let total = ids::now_ms().saturating_sub(self.migration().started_ms);
            record.total_us = total * 1000;
            if let Some(Outcome::Released { bytes, lost }) = outcome {
                record.bytes = bytes;
                record.error = lost.map(|why| {
                    format!(
                        "memory that was still on host `{}` is lost, and the container was ended: {why}",
                        self.migration().from
                    )
                });
            }
        }
        let freeze_us = record.freeze_us;
        let phase = reaches.unwrap_or(self.migration().phase);
        self.advance(phase, record).await?;
        info!(migration = %self.migration().id, %phase, freeze_us, "{what} done");
        Ok(())
    }

    /// In whole microseconds when this leader saw the freeze begin, else from the clock.
    fn freeze_us(&self) -> u64 {
        match (self.freeze_began, self.migration().freeze_started_ms) {
            (Some(began), _) => began.elapsed().as_micros() as u64,
            (None, Some(began)) => ids::now_ms().saturating_sub(began) * 1000,
            (None, None) => 0,
        }
    }

    async fn commit(&mut self) -> Result<(), ProposeError> {
        pause::at("commit").await;
        let began = Instant::now();
        let commands = self.course.commit();
        match self.leader.raft.propose_all(&commands).await {
            Ok(_) => {
                self.own_steps
                    .push(FreezeStep::new("raft commit", began.elapsed()));
                self.course.note(Phase::Committed, &Record::default());
                Ok(())
            }
            // A refusal is certain: it is not committed and, aborted, never will be.
            Err(ProposeError::Refused(refusal)) => self.abort(refusal.to_string(), None).await,
            Err(unknown) => Err(unknown),
        }
    }

    async fn advance(&mut self, to: Phase, record: Record) -> Result<(), ProposeError> {
        let command = self.course.advance(to, record.clone());
        match self.leader.raft.propose(&command).await {
            Ok(_) => self.course.note(to, &record),
            // It was taken back meanwhile.
            Err(ProposeError::Refused(_)) if self.look(&self.leader.state()) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether the stored migration was taken back while this one went on.
    fn look(&mut self, state: &State) -> bool {
        let phase = self.migration().phase;
        let news = self.course.look(state);
        if news {
            info!(migration = %self.migration().id, %phase, "taken back");
        }
        news
    }

    /// Nothing is undone before every leader to come knows that it must be.
    async fn abort(
        &mut self,
        reason: String,
        failure: Option<FailureKind>,
    ) -> Result<(), ProposeError> {
        warn!(migration = %self.migration().id, phase = %self.migration().phase, %reason, "aborting");
        let command = self.course.abort(reason, failure);
        self.leader.raft.propose(&command).await?;
        self.course.note(Phase::Aborting, &Record::default());
        Ok(())
    }

    /// The destination has said that it never resumed, and never will.
    async fn take_back(&mut self, reason: String) -> Result<(), ProposeError> {
        let (migration, from) = (&self.migration().id, &self.migration().from);
        warn!(%migration, %reason, "going back to the source after the commit");
        let error = format!("resume: {reason}; the container went back to host `{from}`");
        let command = self.course.take_back(RecoveredBy::Destination, error);
        self.leader.raft.propose(&command).await?;
        self.look(&self.leader.state());
        Ok(())
    }

    async fn undo(&mut self, asks: Vec<Ask>) -> Result<(), ProposeError> {
        if self.migration().recovered.is_some() {
            return self.recover(asks).await;
        }
        // Side by side: a destination that is down must not keep the source frozen.
        join_all(asks.into_iter().map(|ask| self.insist(ask))).await;
        self.advance(Phase::Aborted, Record::default()).await?;
        info!(migration = %self.migration().id, "aborted, the source runs on");
        Ok(())
    }

    /// The container is the source's again. A destination that is in contact discards first: by an
    /// operator's word it may run a copy. One that is not must not keep the source frozen.
    async fn recover(&mut self, asks: Vec<Ask>) -> Result<(), ProposeError> {
        let to = self.migration().to.clone();
        let of = |side| {
            asks.iter()
                .filter(move |ask| ask.act.side() == side)
                .cloned()
        };
        let sessions = &self.leader.sessions;
        sessions.wait_elected(std::slice::from_ref(&to)).await;
        let cleared = sessions.is_up(&to) && {
            let discarding = join_all(of(Side::Destination).map(|ask| self.insist(ask)));
            timeout(CLEARING, discarding).await.is_ok()
        };
        join_all(of(Side::Source).map(|ask| self.insist(ask))).await;
        let record = Record {
            uncleared: !cleared,
            ..Record::default()
        };
        self.advance(Phase::Aborted, record).await?;
        info!(migration = %self.migration().id, cleared, "recovered, the source runs on");
        Ok(())
    }

    /// Insists until the migration goes back after its commit.
    async fn unless_taken_back(&self, ask: Ask) -> Insisted {
        let id = &self.migration().id;
        let mut published = self.leader.raft.published();
        let taken_back = published.wait_for(|published| {
            let stored = published.state.migrations.get(id);
            stored.is_some_and(|stored| stored.recovered.is_some())
        });
        tokio::select! {
            biased;
            insisted = self.insist(ask) => insisted,
            _ = taken_back => Insisted::TakenBack,
        }
    }

    /// Asks until the host has done it, or says that there is nothing to do.
    async fn insist(&self, ask: Ask) -> Insisted {
        let insisted = self.again_and_again(ask).await;
        self.leader.waits.forget(&self.migration().id);
        insisted
    }

    async fn again_and_again(&self, ask: Ask) -> Insisted {
        let waits = |why: String| {
            let what = format!(
                "for host `{}` to {}: {why}",
                ask.host,
                ask.command.verb.name()
            );
            self.leader.waits.keep(&self.migration().id, what);
        };
        let (act, host) = (ask.act, &ask.host);
        let mut command = ask.command.clone();
        let mut backoff = BACKOFF;
        let mut attempt = 0;
        loop {
            match self.leader.sessions.ask(host, command.clone()).await {
                Ok(outcome) => return Insisted::Done(outcome),
                Err(AskError::HostDown(_)) => {
                    warn!(migration = %self.migration().id, %host, what = command.verb.name(),
                        "host is down, waiting for it");
                    waits("the host is down".to_owned());
                    self.leader.sessions.wait_up(host).await;
                }
                Err(AskError::Failed(failure)) => {
                    warn!(migration = %self.migration().id, %host, what = command.verb.name(),
                        error = %failure.message, "failed");
                    if nothing_left(act, failure.kind) {
                        return Insisted::NothingLeft;
                    }
                    if failure.kind == FailureKind::NeverResumed && act == Act::Resume {
                        return Insisted::NeverResumed(failure.message);
                    }
                    waits(failure.message);
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    attempt += 1;
                    command.operation = operation(&self.migration().id, act, attempt);
                }
            }
        }
    }
}
