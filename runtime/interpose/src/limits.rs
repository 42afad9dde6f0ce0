//! What `/proc/PID/limits` says about one resource, as a pure function.
//!
//! Not the reading of the file, which is in [`crate::sys`], its only caller.

/// A limit in the kernel's layout, `struct rlimit64`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// `RLIM64_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

/// The kernel's captions (`lnames` in `fs/proc/base.c`), by `RLIMIT_*` number.
/// The numbers are the same on x86_64 and aarch64.
const CAPTIONS: [&[u8]; 16] = [
    b"Max cpu time",
    b"Max file size",
    b"Max data size",
    b"Max stack size",
    b"Max core file size",
    b"Max resident set",
    b"Max processes",
    b"Max open files",
    b"Max locked memory",
    b"Max address space",
    b"Max file locks",
    b"Max pending signals",
    b"Max msgqueue size",
    b"Max nice priority",
    b"Max realtime priority",
    b"Max realtime timeout",
];

/// The limit of a resource, or `None` if the number or the text is not known.
pub(crate) fn find(text: &[u8], resource: usize) -> Option<Limit> {
    let caption = *CAPTIONS.get(resource)?;
    let columns = text
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(caption))?;
    // Captions are padded, so a space must follow: none is taken for a longer one.
    if columns.first() != Some(&b' ') {
        return None;
    }
    let mut values = columns
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    Some(Limit {
        soft: value(values.next()?)?,
        hard: value(values.next()?)?,
    })
}

fn value(word: &[u8]) -> Option<u64> {
    if word == b"unlimited" {
        return Some(UNLIMITED);
    }
    word.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              10                   20                   seconds   
Max file size             unlimited            unlimited            bytes     
Max data size             11                   21                   bytes     
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max resident set          12                   22                   bytes     
Max processes             96343                96344                processes 
Max open files            1024                 20000                files     
Max locked memory         8388608              8388609              bytes     
Max address space         13                   23                   bytes     
Max file locks            14                   24                   locks     
Max pending signals       15                   25                   signals   
Max msgqueue size         819200               819201               bytes     
Max nice priority         0                    1                    
Max realtime priority     2                    3                    
Max realtime timeout      18446744073709551614 unlimited            us        
";

    #[test]
    fn every_resource_is_found_by_its_number() {
        let all = [
            (10, 20),
            (UNLIMITED, UNLIMITED),
            (11, 21),
            (8388608, UNLIMITED),
            (0, UNLIMITED),
            (12, 22),
            (96343, 96344),
            (1024, 20000),
            (8388608, 8388609),
            (13, 23),
            (14, 24),
            (15, 25),
            (819200, 819201),
            (0, 1),
            (2, 3),
            (u64::MAX - 1, UNLIMITED),
        ];
        for (resource, (soft, hard)) in all.into_iter().enumerate() {
            assert_eq!(
                find(TEXT.as_bytes(), resource),
                Some(Limit { soft, hard }),
                "resource {resource}"
            );
        }
    }

    #[test]
    fn an_unknown_resource_has_no_limit() {
        assert_eq!(find(TEXT.as_bytes(), 16), None);
        assert_eq!(find(TEXT.as_bytes(), usize::MAX), None);
    }

    #[test]
    fn text_that_is_cut_or_foreign_is_refused() {
        for text in [
            "",
            "Max cpu time",
            "Max cpu time              ",
            "Max cpu time              10",
            "Max cpu timers            10                   20                   seconds",
            "Max cpu time              ten                  20                   seconds",
            "Max cpu time              10                   -1                   seconds",
            "Max cpu time              10                   99999999999999999999 seconds",
        ] {
            assert_eq!(find(text.as_bytes(), 0), None, "{text:?}");
        }
    }
}
