//! A part of the other tests once more, while the machine does something else: short processes, kills, page cache, io_uring, and kills at a limit. What
//! others do must change no figure of a test's own cgroup, and none of its losses.

use harness::load::Load;

fn beside(with_oom_kills: bool, test: fn()) {
    let load = Load::start(with_oom_kills).unwrap();
    test();
    load.end().unwrap();
}

#[test]
#[ignore = "root"]
fn native_beside_a_load_two_recordings_are_both_right() {
    beside(true, super::lifecycle::native_two_at_once_are_both_right);
}

#[test]
#[ignore = "root"]
fn native_beside_a_load_only_the_tiny_table_loses() {
    beside(true, super::losses::native_tiny_samples);
}

#[test]
#[ignore = "root"]
fn native_beside_a_load_a_command_is_whole() {
    beside(true, super::command::native_a_command_with_a_thousand_children_is_whole);
}

#[test]
#[ignore = "root"]
fn native_beside_a_load_growth_between_marks_is_known_to_the_byte() {
    beside(true, super::mark::native_mark_growth_between_two_marks_is_known_to_the_byte);
}

/// Each kill takes a picture where the kernel half is not told what is wanted, as here; so there are none.
#[test]
#[ignore = "root"]
fn native_beside_a_load_pictures_read_whole() {
    beside(false, super::freeze::native_old_pictures_read_whole);
}

/// As above.
#[test]
#[ignore = "root"]
fn native_beside_a_load_pictures_are_bounded() {
    beside(false, super::freeze::native_pictures_are_bounded_and_epochs_go_round);
}
