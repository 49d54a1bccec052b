//! Results of the kernel's verifier.

use std::io;

/// Amount of log that the verifier writes about a rejected program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDepth {
    /// The reason and statistics. Takes no extra time.
    Reasons,
    /// Also each verified instruction. Takes minutes for a program that is rejected as too large.
    Instructions,
}

/// Result of the verification of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Name of the program.
    pub program: &'static str,
    /// Number of verified instructions (Linux 5.16; 0 if the kernel does not report it), or the reason of the
    /// rejection.
    pub outcome: Result<u32, Refusal>,
}

/// Reason why a program was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Message of the verifier, in one line.
    pub reason: String,
    /// Complete log of the verifier.
    pub log: String,
}

impl Refusal {
    pub(super) fn new(error: &io::Error, log: String) -> Self {
        let reason = reason(&log).unwrap_or_else(|| format!("{error}, without a message from the verifier"));
        Self { reason, log }
    }
}

/// Maximum lines of a reason. The verifier explains some reasons in a second line.
const REASON_LINES: usize = 2;

/// Finds the reason in a log: the last lines before the statistics that are not part of the instruction trace.
fn reason(log: &str) -> Option<String> {
    let said = log.lines().map(str::trim).take_while(|line| !is_statistics(line));
    let said: Vec<_> = said.filter(|line| !line.is_empty()).collect();
    let words = said.iter().rev().take_while(|line| !is_walk(line)).take(REASON_LINES);
    let mut words: Vec<_> = words.copied().collect();
    words.reverse();
    (!words.is_empty()).then(|| words.join(": "))
}

/// Whether a line belongs to the statistics, which end the log and begin with the verification time.
fn is_statistics(line: &str) -> bool {
    ["verification time ", "stack depth ", "processed "].iter().any(|start| line.starts_with(start))
}

/// Whether a line belongs to the trace: an instruction, a state, a source line, or the result of a path.
fn is_walk(line: &str) -> bool {
    let is_instruction = line.split_once(": ").is_some_and(|(at, _)| at.bytes().all(|byte| byte.is_ascii_digit()));
    let is_state = line.contains(": R") || line.contains("=scalar(") || line.starts_with("R0=");
    let starts =
        [";", "from ", "to ", "frame", "func#", "last_idx", "regs=", "mark_precise", "parent ", "caller", "callee"];
    is_instruction || is_state || starts.iter().any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Log of Linux 6.1 for a length without a lower bound.
    const LINUX_6_1: &str = "\
invalid access to map value, value_size=19000 off=32 size=0
R3 min value is outside of the allowed memory range
verification time 10387 usec
stack depth 184+0+0
processed 9054 insns (limit 1000000) max_states_per_insn 4 total_states 213 peak_states 213 mark_read 17
";

    #[test]
    fn the_reason_stands_in_front_of_the_statistics() {
        assert_eq!(
            reason(LINUX_6_1).as_deref(),
            Some(
                "invalid access to map value, value_size=19000 off=32 size=0: \
                 R3 min value is outside of the allowed memory range"
            )
        );
        let linux_7_3 = "BPF program is too large. Processed 1000001 insn\nverification time 31054312 usec\n\
                         stack depth 184+0+0\nsubprog 6 (memmove) static insns_self 3082 insns_total 3082 stack 0\n";
        assert_eq!(reason(linux_7_3).as_deref(), Some("BPF program is too large. Processed 1000001 insn"));
    }

    #[test]
    fn the_walk_is_not_the_reason() {
        let log = "func#0 @0\n0: R1=ctx() R10=fp0\n; let x = 1\n0: (b7) r0 = 0    ; R0_w=0\n\
                   21: (85) call bpf_skb_load_bytes#26\nR4 min value is negative\nverification time 9 usec\n";
        assert_eq!(reason(log).as_deref(), Some("R4 min value is negative"));
    }

    #[test]
    fn without_a_word_the_kernels_error_is_the_reason() {
        let error = io::Error::from_raw_os_error(libc::E2BIG);
        let refusal = Refusal::new(&error, String::new());
        assert_eq!(refusal.reason, "Argument list too long (os error 7), without a message from the verifier");
    }
}
