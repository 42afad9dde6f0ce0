//! Mistakes that can be put in on purpose: a simulation that finds none of them proves nothing.

use std::str::FromStr;

/// One mistake of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// An agent that hears no leader for some seconds lets its frozen containers run again.
    ThawOnSilence,
    /// A leader commits as soon as everything was sent.
    CommitBeforeStaged,
    /// A member says that it has entries and votes which it never synced.
    NeverSynced,
    /// An agent answers and does not write its ledger.
    Forgetful,
    /// An agent does whatever it hears: again, late, and by any generation.
    NoAdmission,
    /// A leader answers what it has, without asking whether it still leads.
    StaleRead,
    /// A request is answered when it is proposed, not when it is applied.
    EarlyAnswer,
}

impl Bug {
    pub const ALL: [Self; 7] = [
        Self::ThawOnSilence,
        Self::CommitBeforeStaged,
        Self::NeverSynced,
        Self::Forgetful,
        Self::NoAdmission,
        Self::StaleRead,
        Self::EarlyAnswer,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ThawOnSilence => "thaw-on-silence",
            Self::CommitBeforeStaged => "commit-before-staged",
            Self::NeverSynced => "never-synced",
            Self::Forgetful => "forgetful",
            Self::NoAdmission => "no-admission",
            Self::StaleRead => "stale-read",
            Self::EarlyAnswer => "early-answer",
        }
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        all.find(|bug| bug.as_str() == text).ok_or_else(|| {
            format!(
                "no bug `{text}`; there are {}",
                Self::ALL.map(Self::as_str).join(", ")
            )
        })
    }
}
