//! What a person sees of a migration under way, on standard error: on a terminal a bar that
//! lives, else a line per phase and per round.

use std::{
    cell::{Cell, RefCell},
    io::IsTerminal,
    time::{Duration, Instant},
};

use godwit_types::{ByteSize, MigrationMode, MigrationView, Phase, Progress, Round};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::age::{millis, seconds};

const WAITING: &str = "{spinner} {msg}";
const COPYING: &str = "{spinner} {msg} [{bar:24}] {percent:>3} %";

/// See the module.
pub struct Watcher {
    started: Instant,
    bar: Option<ProgressBar>,
    phase: Cell<Option<(Phase, Option<u32>)>>,
    /// Rounds that have had their line.
    told: Cell<u32>,
    last: RefCell<Option<Progress>>,
}

impl Watcher {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style(WAITING));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            started: Instant::now(),
            bar,
            phase: Cell::new(None),
            told: Cell::new(0),
            last: RefCell::new(None),
        }
    }

    pub fn see(&self, view: &MigrationView) {
        for round in self.ended(view) {
            self.say(line(self.started.elapsed(), "round", &of_round(&round)));
        }
        let now = Some((view.phase, view.place));
        if self.phase.replace(now) != now {
            let phase = view.phase.to_string();
            self.say(line(self.started.elapsed(), &phase, &meaning(view)));
        }
        if let Some(bar) = &self.bar {
            let what = format!("{} {} → {}", view.name, view.from, view.to);
            match &view.progress {
                Some(progress) => {
                    bar.set_style(style(COPYING));
                    bar.set_length(progress.pages_total);
                    bar.set_position(progress.pages_total.saturating_sub(progress.pages_left));
                    bar.set_message(format!("{what}  {}", of_progress(progress)));
                }
                None => {
                    bar.set_style(style(WAITING));
                    bar.set_message(what);
                }
            }
        }
    }

    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// The rounds that are over and have no line yet. While they go on, only their pages are
    /// known; at the end of pre-copy everything is.
    fn ended(&self, view: &MigrationView) -> Vec<Round> {
        let told = self.told.get();
        let mut rounds: Vec<_> = view
            .rounds
            .iter()
            .filter(|r| r.number > told)
            .cloned()
            .collect();
        let last = self.last.replace(view.progress.clone());
        if let (Some(last), Some(now)) = (last, &view.progress)
            && now.round > last.round
            && last.round > told
        {
            rounds.push(Round {
                number: last.round,
                sent_pages: last.pages_total,
                dirty_pages: now.pages_total,
                ..Round::default()
            });
        }
        if let Some(round) = rounds.last() {
            self.told.set(round.number);
        }
        rounds
    }

    fn say(&self, line: String) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => super::note(line),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn line(elapsed: Duration, what: &str, text: &str) -> String {
    format!("{}  {what:<11}  {text}", seconds(elapsed.as_micros()))
}

fn of_round(round: &Round) -> String {
    let pages = round.sent_pages + round.zero_pages;
    let mut text = format!("{}: {pages} pages", round.number);
    if round.sent_bytes > 0 {
        text += &format!(", {}", ByteSize(round.sent_bytes));
    }
    if round.micros > 0 {
        text += &format!(" in {}", millis(round.micros));
    }
    text + &format!(", {} written again", round.dirty_pages)
}

/// How pre-copy or post-copy stands, in one line.
pub fn of_progress(progress: &Progress) -> String {
    if progress.round == 0 && progress.pages_total > 0 {
        return format!(
            "after the freeze: {} of {} pages left at the source, {}/s sent",
            progress.pages_left,
            progress.pages_total,
            ByteSize(progress.bytes_per_s),
        );
    }
    let mut text = format!(
        "round {}: {} of {} pages left, {} pages/s written, {}/s sent",
        progress.round,
        progress.pages_left,
        progress.pages_total,
        progress.dirty_pages_per_s,
        ByteSize(progress.bytes_per_s),
    );
    if progress.predicted_freeze_us > 0 {
        text += &format!(", freeze about {}", millis(progress.predicted_freeze_us));
    }
    text
}

fn meaning(view: &MigrationView) -> String {
    let (name, from, to) = (&view.name, &view.from, &view.to);
    match view.phase {
        Phase::Pending => match view.place {
            Some(place) => format!("waits in the queue, at place {place}"),
            None => "accepted".into(),
        },
        Phase::Preflight => format!("{from} and {to} say that it can work"),
        Phase::Reserved => format!("{to} is ready"),
        Phase::PreCopy if view.rounds.is_empty() => "all memory is sent in the freeze".into(),
        Phase::PreCopy => format!("{to} has nearly everything"),
        Phase::Frozen => format!("{name} is stopped on {from}"),
        Phase::Transferred if view.options.mode == MigrationMode::PostCopy => {
            format!("{to} has everything but what was written last")
        }
        Phase::Transferred => format!("{to} has everything"),
        Phase::Staged => format!("{name} is restored on {to}"),
        Phase::Committed => format!("{name} belongs to {to}"),
        Phase::Resumed => format!("{name} runs on {to}"),
        Phase::Done => format!("{from} has let go"),
        Phase::Aborting => format!("{name} goes back to {from}"),
        Phase::Aborted => format!("{name} runs on {from} as before"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::sample_view;

    fn progress(round: u32, left: u64, total: u64) -> Progress {
        Progress {
            round,
            pages_left: left,
            pages_total: total,
            dirty_pages_per_s: 120,
            bytes_per_s: 50 << 20,
            predicted_freeze_us: 45_000,
        }
    }

    #[test]
    fn a_phase_is_a_line_with_the_time_it_came_at() {
        let view = sample_view(Phase::Frozen);
        assert_eq!(
            line(Duration::from_millis(1234), "frozen", &meaning(&view)),
            "  1.234 s  frozen       redis is stopped on h1"
        );
    }

    #[test]
    fn one_that_waits_is_told_its_place() {
        let mut view = sample_view(Phase::Pending);
        assert_eq!(meaning(&view), "accepted");
        view.place = Some(3);
        assert_eq!(meaning(&view), "waits in the queue, at place 3");
    }

    #[test]
    fn every_round_has_one_line() {
        let watcher = Watcher::new();
        let mut view = sample_view(Phase::Reserved);
        let mut at = |progress| {
            view.progress = Some(progress);
            let ended = watcher.ended(&view);
            ended.iter().map(of_round).collect::<Vec<_>>()
        };
        assert!(at(progress(1, 9, 9)).is_empty());
        assert!(at(progress(1, 2, 9)).is_empty());
        assert_eq!(at(progress(2, 4, 4)), ["1: 9 pages, 4 written again"]);
        assert!(at(progress(2, 1, 4)).is_empty());
        let mut done = sample_view(Phase::PreCopy);
        done.rounds = [1, 2]
            .map(|number| Round {
                number,
                sent_bytes: 8192,
                sent_pages: 2,
                zero_pages: 2,
                dirty_pages: 1,
                micros: 1500,
            })
            .into();
        let ended: Vec<_> = watcher.ended(&done).iter().map(of_round).collect();
        assert_eq!(ended, ["2: 4 pages, 8.0 KiB in 1.5 ms, 1 written again"]);
        assert!(watcher.ended(&done).is_empty());
    }

    #[test]
    fn progress_says_all_that_matters() {
        assert_eq!(
            of_progress(&progress(2, 1, 4)),
            "round 2: 1 of 4 pages left, 120 pages/s written, 50.0 MiB/s sent, freeze about 45 ms"
        );
    }
}
