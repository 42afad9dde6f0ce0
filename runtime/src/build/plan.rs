//! Stages, what each begins with, and which of them are needed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    error::{BuildFault, Refused},
    expand::expand,
    instruction::{Instruction, Kind},
    parse::Dockerfile,
    stage::platform,
};

const MAX_STAGES: usize = 256;

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    Scratch,
    /// An earlier one, by its place.
    Stage(usize),
    /// An image, as it is called in the Dockerfile.
    Image(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagePlan {
    pub name: Option<String>,
    /// Of its `FROM`.
    pub line: u32,
    pub text: String,
    pub base: Base,
    pub instructions: Vec<Instruction>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub stages: Vec<StagePlan>,
    /// The one that is asked for.
    pub target: usize,
    /// It and those it needs, in their order.
    pub needed: Vec<usize>,
    /// `ARG`s before the first `FROM`, expanded.
    pub globals: BTreeMap<String, String>,
}

impl Plan {
    /// A stage that may be copied from in stage `here`: an earlier one, by name or place.
    pub fn earlier(&self, here: usize, text: &str) -> Option<usize> {
        find(&self.stages[..here], text)
    }

    /// What a stage is called in messages.
    pub fn shown(&self, stage: usize) -> String {
        match &self.stages[stage].name {
            Some(name) => name.clone(),
            None => format!("stage-{stage}"),
        }
    }
}

/// Plans the build of `target`, or of the last stage. `arguments` are the caller's.
pub fn plan(
    file: &Dockerfile,
    arguments: &BTreeMap<String, String>,
    target: Option<&str>,
) -> Result<Plan, BuildFault> {
    let mut globals = platform();
    let mut stages: Vec<StagePlan> = Vec::new();
    for instruction in &file.instructions {
        let at = |fault: Refused| fault.at(&file.file, instruction.line);
        match &instruction.kind {
            Kind::Arg(all) if stages.is_empty() => {
                for (name, default) in all {
                    let look = |name: &str| globals.get(name).cloned();
                    let default = default
                        .as_ref()
                        .map(|word| expand(word, file.escape, &look))
                        .transpose()
                        .map_err(at)?;
                    if let Some(value) = arguments.get(name).cloned().or(default) {
                        globals.insert(name.clone(), value);
                    }
                }
            }
            Kind::From {
                platform,
                base,
                name,
            } => {
                let look = |name: &str| globals.get(name).cloned();
                let expand = |word: &str| expand(word, file.escape, &look).map_err(at);
                if stages.len() >= MAX_STAGES {
                    return Err(at(Refused::Long("256 stages")));
                }
                if let Some(name) = name
                    && stages.iter().any(|stage| stage.name.as_ref() == Some(name))
                {
                    return Err(at(Refused::StageTwice(name.clone())));
                }
                if let Some(wanted) = platform {
                    let here = &globals["TARGETPLATFORM"];
                    let wanted = expand(wanted)?;
                    // `linux/arm64/v8` is `linux/arm64`.
                    let short = wanted.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
                    if short != *here {
                        return Err(at(Refused::Platform(wanted, here.clone())));
                    }
                }
                let base = expand(base)?;
                let base = match find(&stages, &base).filter(|_| !is_number(&base)) {
                    Some(stage) => Base::Stage(stage),
                    None if base == "scratch" => Base::Scratch,
                    None if base.is_empty() => return Err(at(Refused::ImageName(base))),
                    None => Base::Image(base),
                };
                stages.push(StagePlan {
                    name: name.clone(),
                    line: instruction.line,
                    text: instruction.text.clone(),
                    base,
                    instructions: Vec::new(),
                });
            }
            _ => {
                if let Some(stage) = stages.last_mut() {
                    stage.instructions.push(instruction.clone());
                }
            }
        }
    }
    let target = match target {
        None => stages.len() - 1,
        Some(text) => find(&stages, text).ok_or_else(|| {
            let names: Vec<_> = stages.iter().filter_map(|s| s.name.clone()).collect();
            Refused::NoStage(text.to_owned(), names.join(", ")).at(&file.file, 1)
        })?,
    };
    let needed = needed(&stages, target);
    Ok(Plan {
        stages,
        target,
        needed,
        globals,
    })
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn find(stages: &[StagePlan], text: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let named = stages
        .iter()
        .position(|s| s.name.as_deref() == Some(&lower));
    named.or_else(|| text.parse().ok().filter(|place| *place < stages.len()))
}

fn needed(stages: &[StagePlan], target: usize) -> Vec<usize> {
    let mut needed = BTreeSet::new();
    let mut left = vec![target];
    while let Some(stage) = left.pop() {
        if !needed.insert(stage) {
            continue;
        }
        if let Base::Stage(base) = stages[stage].base {
            left.push(base);
        }
        for instruction in &stages[stage].instructions {
            if let Kind::Copy(copy) = &instruction.kind
                && let Some(from) = &copy.from
            {
                left.extend(find(&stages[..stage], from));
            }
        }
    }
    needed.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::parse;

    fn planned(text: &str, target: Option<&str>) -> Result<Plan, BuildFault> {
        let arguments = BTreeMap::from([("V".to_owned(), "2".to_owned())]);
        plan(&parse("f", text).unwrap(), &arguments, target)
    }

    const THREE: &str = "ARG V=1\nARG W=w$V\nFROM a:$V AS one\nRUN x\nFROM scratch AS Two\n\
                         COPY --from=one /x /\nFROM ${W:-b} as three\nFROM two\nCOPY --from=2 a b";

    #[test]
    fn stages_are_found_and_only_those_needed_are_built() {
        let all = planned(THREE, None).unwrap();
        assert_eq!(all.stages[0].base, Base::Image("a:2".into()));
        assert_eq!(all.stages[1].base, Base::Scratch);
        assert_eq!(all.stages[2].base, Base::Image("w2".into()));
        assert_eq!(all.stages[3].base, Base::Stage(1));
        assert_eq!(all.needed, [0, 1, 2, 3]);
        assert_eq!(planned(THREE, Some("TWO")).unwrap().needed, [0, 1]);
        assert_eq!(planned(THREE, Some("2")).unwrap().needed, [2]);
    }

    #[test]
    fn what_can_not_be_planned_is_refused_with_its_line() {
        let refused = |text: &str, target| planned(text, target).unwrap_err().to_string();
        assert!(refused(THREE, Some("four")).contains("there is no stage `four`"));
        assert!(refused("FROM a AS x\nFROM b AS X", None).starts_with("f:2: stage name `x`"));
        assert!(refused("FROM --platform=plan9/mips a", None).starts_with("f:1: platform"));
        assert!(refused("FROM $NOTHING", None).starts_with("f:1: ``"));
        planned("FROM --platform=$BUILDPLATFORM a", None).unwrap();
    }
}
