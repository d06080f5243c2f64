//! What differs between versions of V8, as numbers: the kernel half reads all of them by the same code. Offsets are in bytes from the beginning of an
//! object, whose pointers are one more than its address; in the layout without compressed pointers, which Node has.

/// Versions of V8, and builds with their code in different places, that there is room for.
pub const V8S: u32 = 64;

/// The kind of lines that functions of V8 have ([`super::FunctionEvent::lines_format`]): the first line is a position in the script, and the bytes of lines
/// are the script's length; both in UTF-16 units.
pub const POSITIONS: u32 = 100;

/// Bytes that are read of what is shared by all closures of a function.
pub const SHARED_BYTES: usize = 72;

/// A build of V8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct V8 {
    /// Where in the file V8's own machine code for JavaScript begins and ends: there and in memory without a file are frames of functions.
    pub code_start: u32,
    /// See [`V8::code_start`].
    pub code_end: u32,
    /// Kinds of frames without a context that have a function where all have it.
    pub with_function: [u32; 3],
    /// The kind of frame in which the function stands elsewhere: above the return address.
    pub builtin_exit: u32,
    /// In a closure, what is shared by all of its function.
    pub shared: u32,
    /// In that, the name or the scope, and the script.
    pub shared_name: u32,
    /// See [`V8::shared_name`].
    pub shared_script: u32,
    /// In that, a number that tells functions of a script apart.
    pub shared_literal: u32,
    /// Types of objects.
    pub type_shared: u32,
    /// A scope.
    pub type_scope: u32,
    /// A script.
    pub type_script: u32,
    /// What stands for a script while it is debugged; 0 where nothing does.
    pub type_debug: u32,
    /// In a scope, where its variable part begins.
    pub scope_start: u32,
    /// The type of the scope of a module, and what it has more there.
    pub module_scope: u32,
    /// See [`V8::module_scope`].
    pub module_more: u32,
    /// 1: the scope's flags are 32 bits, and its position stands before its variable part.
    pub is_packed: u32,
}
crate::assert_size!(V8, 4 * 18);
crate::plain_data!(V8);
