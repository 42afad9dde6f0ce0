//! System call filters: a profile in Docker's form becomes one of the OCI runtime's, for the
//! capabilities that the container has and the machine it runs on. Pure.
//!
//! `seccomp/default.json` says what Docker's default profile says, as its documentation describes
//! it: what is allowed is taken from the profile in `golang-github-containers-common` 0.50 (Debian
//! 12), less what that one allows beyond Docker's (mounting, namespaces, keyrings), with the calls
//! that kernels brought since.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const DEFAULT: &str = include_str!("seccomp/default.json");
/// The longest profile that is read.
pub const LONGEST: usize = 1 << 20;

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("seccomp profile is longer than {LONGEST} bytes")]
    Long,
    #[error("seccomp profile is not valid")]
    Json(#[from] serde_json::Error),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    /// As old profiles have it.
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: usize,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Filter {
    arches: Vec<String>,
    caps: Vec<String>,
    min_kernel: String,
}

/// What a profile is read for.
pub struct Container<'a> {
    /// Its bounding set.
    pub capabilities: &'a [String],
    /// As Rust names it.
    pub arch: &'a str,
    /// As `uname -r` says.
    pub kernel: &'a str,
}

impl Container<'_> {
    /// As Go names it.
    fn arch(&self) -> &str {
        match self.arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    fn takes(&self, rule: &Rule) -> bool {
        let arch = self.arch();
        let has = |caps: &[String], all: bool| {
            let mut held = caps.iter().map(|cap| self.capabilities.contains(cap));
            if all {
                held.all(|held| held)
            } else {
                held.any(|held| held)
            }
        };
        let (includes, excludes) = (&rule.includes, &rule.excludes);
        let included = includes.arches.is_empty() || includes.arches.iter().any(|a| a == arch);
        let excluded = excludes.arches.iter().any(|a| a == arch)
            || has(&excludes.caps, false)
            || (!excludes.min_kernel.is_empty() && self.is_newer(&excludes.min_kernel));
        included
            && has(&includes.caps, true)
            && (includes.min_kernel.is_empty() || self.is_newer(&includes.min_kernel))
            && !excluded
    }

    /// Whether the kernel is this version or a later one.
    fn is_newer(&self, than: &str) -> bool {
        version(self.kernel) >= version(than)
    }
}

fn version(text: &str) -> (u32, u32) {
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// `linux.seccomp` of the bundle. `profile`: the user's, None for Docker's.
pub fn filter(profile: Option<&str>, container: &Container<'_>) -> Result<Value, SeccompError> {
    let text = profile.unwrap_or(DEFAULT);
    if text.len() > LONGEST {
        return Err(SeccompError::Long);
    }
    let profile: Profile = serde_json::from_str(text)?;
    let native = format!("SCMP_ARCH_{}", container.arch.to_ascii_uppercase());
    let mut architectures = profile.architectures;
    for map in profile.arch_map {
        if map.architecture == native {
            architectures.push(map.architecture);
            architectures.extend(map.sub_architectures);
        }
    }
    let rules: Vec<Value> = profile
        .syscalls
        .iter()
        .filter(|rule| container.takes(rule))
        .map(|rule| {
            let names: Vec<&String> = rule.names.iter().chain(&rule.name).collect();
            let mut value = json!({"names": names, "action": rule.action});
            if let Some(errno) = rule.errno_ret {
                value["errnoRet"] = errno.into();
            }
            if let Some(args) = rule.args.as_ref().filter(|args| !args.is_empty()) {
                value["args"] = json!(args);
            }
            value
        })
        .collect();
    let mut value = json!({
        "defaultAction": profile.default_action,
        "architectures": architectures,
        "syscalls": rules,
    });
    if let Some(errno) = profile.default_errno_ret {
        value["defaultErrnoRet"] = errno.into();
    }
    if !profile.flags.is_empty() {
        value["flags"] = json!(profile.flags);
    }
    // What the OCI form does not know is the profile's fault, and said before anything is made.
    serde_json::from_value::<oci_spec::runtime::LinuxSeccomp>(value.clone())?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(value: &Value, action: &str) -> Vec<String> {
        let rules = value["syscalls"].as_array().unwrap().iter();
        rules
            .filter(|rule| rule["action"] == action && rule["args"].is_null())
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    fn with(capabilities: &[&str]) -> Value {
        let capabilities: Vec<_> = capabilities.iter().map(|c| (*c).to_owned()).collect();
        let container = Container {
            capabilities: &capabilities,
            arch: "x86_64",
            kernel: "6.18.1",
        };
        filter(None, &container).unwrap()
    }

    #[test]
    fn the_default_allows_programs_and_not_what_reaches_the_host() {
        let allowed = names(&with(&["CAP_SYS_CHROOT"]), "SCMP_ACT_ALLOW");
        for name in [
            "read",
            "execve",
            "futex",
            "openat",
            "rseq",
            "chroot",
            "arch_prctl",
        ] {
            assert!(allowed.iter().any(|allowed| allowed == name), "{name}");
        }
        for name in [
            "mount",
            "bpf",
            "userfaultfd",
            "io_uring_setup",
            "keyctl",
            "init_module",
            "reboot",
            "clone",
            "setns",
        ] {
            assert!(!allowed.iter().any(|allowed| allowed == name), "{name}");
        }
    }

    #[test]
    fn a_capability_brings_its_calls() {
        let value = with(&["CAP_SYS_ADMIN"]);
        let allowed = names(&value, "SCMP_ACT_ALLOW");
        assert!(allowed.contains(&"mount".to_owned()) && allowed.contains(&"clone3".to_owned()));
        assert!(!names(&value, "SCMP_ACT_ERRNO").contains(&"clone3".to_owned()));
        assert!(names(&with(&[]), "SCMP_ACT_ERRNO").contains(&"clone3".to_owned()));
    }

    #[test]
    fn kernels_are_compared_by_number() {
        let container = |kernel| Container {
            capabilities: &[],
            arch: "x86_64",
            kernel,
        };
        assert!(container("6.18.1").is_newer("4.8"));
        assert!(container("4.10.0-x").is_newer("4.8") && !container("4.7").is_newer("4.8"));
    }

    #[test]
    fn a_profile_that_is_none_is_refused() {
        let container = Container {
            capabilities: &[],
            arch: "x86_64",
            kernel: "6.1",
        };
        for bad in ["", "{}", "[]", r#"{"defaultAction":"SCMP_ACT_FLY"}"#] {
            assert!(filter(Some(bad), &container).is_err(), "{bad}");
        }
        let own = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO"}]}"#;
        assert_eq!(
            filter(Some(own), &container).unwrap()["syscalls"][0]["names"][0],
            "mkdir"
        );
        let long = " ".repeat(LONGEST + 1);
        assert!(filter(Some(&long), &container).is_err());
    }
}
