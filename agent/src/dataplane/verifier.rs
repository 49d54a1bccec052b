//! What the kernel's verifier says of the programs.

use std::io;

/// How much the verifier writes about a program that it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogDepth {
    /// The reason, and statistics. Costs nothing.
    Reasons,
    /// Every instruction on the way to the reason as well. Takes minutes where the reason is the length of the way.
    Instructions,
}

/// What the verifier said of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Name of the program.
    pub program: &'static str,
    /// The instructions that it walked until it accepted the program (Linux 5.16; 0 where the kernel does not tell), or
    /// why it did not.
    pub outcome: Result<u32, Refusal>,
}

/// Why a program was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The verifier's own words, in one line.
    pub reason: String,
    /// All that it wrote.
    pub log: String,
}

impl Refusal {
    pub(super) fn new(error: &io::Error, log: String) -> Self {
        let reason = reason(&log).unwrap_or_else(|| format!("{error}, without a word from the verifier"));
        Self { reason, log }
    }
}

/// Most lines of a reason: the verifier explains some of them in a second line.
const REASON_LINES: usize = 2;

/// The verifier's reason: what stands in front of its statistics and is not its walk.
fn reason(log: &str) -> Option<String> {
    let said = log.lines().map(str::trim).take_while(|line| !is_statistics(line));
    let said: Vec<_> = said.filter(|line| !line.is_empty()).collect();
    let words = said.iter().rev().take_while(|line| !is_walk(line)).take(REASON_LINES);
    let mut words: Vec<_> = words.copied().collect();
    words.reverse();
    (!words.is_empty()).then(|| words.join(": "))
}

/// Statistics end the log, and begin with the time that it took.
fn is_statistics(line: &str) -> bool {
    ["verification time ", "stack depth ", "processed "].iter().any(|start| line.starts_with(start))
}

/// A step of the walk: an instruction, the state before it, a line of the source, or what became of a path.
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

    /// Linux 6.1 on a length without a lower bound.
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
        assert_eq!(refusal.reason, "Argument list too long (os error 7), without a word from the verifier");
    }
}
