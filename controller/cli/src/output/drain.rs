//! What a person sees of a drain under way, on standard error: on a terminal a bar that lives, and
//! a line for every container that left or could not.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::IsTerminal,
    time::{Duration, Instant},
};

use godwit_types::{ContainerId, DrainLeft, DrainView};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{age::seconds, failure::shown};

const MOVING: &str = "{spinner} {msg} [{bar:24}] {percent:>3} %";

/// See the module.
pub struct Watcher {
    started: Instant,
    bar: Option<ProgressBar>,
    last: RefCell<Option<DrainView>>,
    /// Containers whose failure was told.
    told: RefCell<BTreeSet<ContainerId>>,
}

impl Watcher {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(MOVING);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            started: Instant::now(),
            bar,
            last: RefCell::default(),
            told: RefCell::default(),
        }
    }

    pub fn see(&self, view: &DrainView) {
        let last = self.last.replace(Some(view.clone()));
        let new =
            |left: &&DrainLeft| left.stuck && self.told.borrow_mut().insert(left.container.clone());
        let stuck: Vec<_> = view.left.iter().filter(new).collect();
        let lines = last
            .iter()
            .flat_map(|last| gone(last, view))
            .chain(stuck.into_iter().map(stays));
        for (what, text) in lines {
            let line = format!(
                "{}  {what:<11}  {text}",
                seconds(self.started.elapsed().as_micros())
            );
            match &self.bar {
                Some(bar) => bar.println(line),
                None => super::note(line),
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_length(u64::from(view.moved) + view.left.len() as u64);
            bar.set_position(u64::from(view.moved));
            bar.set_message(standing(view));
        }
    }

    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What was there the last time and is not now.
fn gone<'a>(
    last: &'a DrainView,
    now: &'a DrainView,
) -> impl Iterator<Item = (&'static str, String)> {
    let there = |left: &DrainLeft| now.left.iter().any(|l| l.container == left.container);
    let gone = last
        .left
        .iter()
        .filter(move |left| now.draining && !there(left));
    gone.map(|left| match &left.to {
        Some(to) => ("moved", format!("{} {} → {to}", left.name, now.host)),
        None => ("gone", left.name.to_string()),
    })
}

fn stays(left: &DrainLeft) -> (&'static str, String) {
    let reason = left.reason.as_deref().unwrap_or("no reason was given");
    ("stays", format!("{}: {}", left.name, shown(reason)))
}

fn standing(view: &DrainView) -> String {
    let stuck = view.left.iter().filter(|left| left.stuck).count();
    format!(
        "{}: {} moved, {} left, {stuck} could not be moved",
        view.host,
        view.moved,
        view.left.len() - stuck
    )
}

/// Three containers have left h1, one is on its way to h2, one could not be moved.
#[cfg(test)]
pub fn sample() -> DrainView {
    use godwit_types::{MigrationId, Phase, Status};

    let left = |number: u8, name: &str| DrainLeft {
        container: ContainerId::from_bytes([number; 32]),
        name: name.parse().unwrap(),
        status: Status::Running,
        migration: None,
        phase: None,
        to: None,
        place: None,
        attempts: 0,
        reason: None,
        stuck: false,
    };
    DrainView {
        host: "h1".parse().unwrap(),
        draining: true,
        moved: 3,
        left: vec![
            DrainLeft {
                migration: Some(MigrationId::from_bytes([1; 8])),
                phase: Some(Phase::PreCopy),
                to: Some("h2".parse().unwrap()),
                ..left(1, "redis")
            },
            DrainLeft {
                attempts: 4,
                reason: Some("no room".into()),
                stuck: true,
                ..left(2, "web")
            },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_and_who_stays_has_a_line() {
        let before = sample();
        assert_eq!(
            standing(&before),
            "h1: 3 moved, 1 left, 1 could not be moved"
        );
        let mut now = before.clone();
        let redis = now.left.remove(0);
        let lines: Vec<_> = gone(&before, &now).collect();
        assert_eq!(lines, [("moved", "redis h1 → h2".to_owned())]);
        assert_eq!(stays(&now.left[0]), ("stays", "web: no room".to_owned()));
        assert_eq!(gone(&now, &now).count(), 0);
        // One that was removed went nowhere.
        let mut before = now.clone();
        before.left.push(DrainLeft { to: None, ..redis });
        let lines: Vec<_> = gone(&before, &now).collect();
        assert_eq!(lines, [("gone", "redis".to_owned())]);
    }

    #[test]
    fn a_failure_is_told_once() {
        let watcher = Watcher::new();
        watcher.see(&sample());
        assert_eq!(watcher.told.borrow().len(), 1);
        watcher.see(&sample());
        assert_eq!(watcher.told.borrow().len(), 1);
    }
}
