//! Stacks as user space keeps them: a record of the kernel's table has room for the longest, and most are an eighth of that.

use tracer_common::stack::{MAX_FRAMES, StackRecord, StackStatus};

/// A stack that was walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// How the walk ended.
    pub status: StackStatus,
    /// Frames as recorded (see [`tracer_common::stack`]), innermost first.
    pub frames: Box<[u64]>,
}

impl From<&StackRecord> for Stack {
    fn from(record: &StackRecord) -> Stack {
        let length = (record.length as usize).min(MAX_FRAMES);
        let status = if record.status == StackStatus::TooDeep as u32 { StackStatus::TooDeep } else { StackStatus::Ended };
        Stack { status, frames: record.frames[..length].into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_use_are_kept() {
        let mut record = StackRecord { check: 1, length: 2, status: StackStatus::TooDeep as u32, frames: [0; MAX_FRAMES] };
        record.frames[..3].copy_from_slice(&[7, 8, 9]);
        assert_eq!(Stack::from(&record), Stack { status: StackStatus::TooDeep, frames: [7, 8].into() });
        record.length = u32::MAX;
        assert_eq!(Stack::from(&record).frames.len(), MAX_FRAMES);
    }
}
