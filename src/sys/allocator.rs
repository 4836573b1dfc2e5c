//! How the allocator treats memory that was needed for a moment only.

#[cfg(any(test, feature = "counting"))]
pub mod counting;

/// Makes the allocator give memory back to the host when it is freed, instead of keeping it for the next time: for a
/// process that needs little but for rare rushes.
///
/// With glibc (mallopt(3)): blocks from `block` bytes on are mappings of their own, which freeing unmaps, and the end of the
/// heap is cut off when half of that is free. By default glibc raises both limits, to megabytes, after the first large
/// block that is freed. Other allocators are left as they are.
pub fn give_back_when_freed(block: u32) {
    #[cfg(not(target_env = "gnu"))]
    let _ = block;
    #[cfg(target_env = "gnu")]
    for (parameter, bytes) in
        [(libc::M_MMAP_THRESHOLD, block), (libc::M_TRIM_THRESHOLD, block / 2), (libc::M_TOP_PAD, block / 4)]
    {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        // SAFETY: it takes two numbers and changes nothing but the allocator's limits. It can only refuse them, and then
        // they stay as they were.
        unsafe { libc::mallopt(parameter, bytes) };
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Whether an address belongs to a mapping of this process.
    fn is_mapped(address: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
        maps.lines().any(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
            let [from, to] = [range.0, range.1].map(|end| usize::from_str_radix(end, 16).expect("an address"));
            (from..to).contains(&address)
        })
    }

    /// In a process of its own: other tests allocate at the same time, and might be given the same address.
    #[test]
    fn a_large_block_is_gone_from_the_process_when_it_is_freed() {
        const ALONE: &str = "HAFT_TEST_ALLOCATOR";
        if std::env::var_os(ALONE).is_none() {
            let me = std::env::current_exe().expect("this program");
            let name = "allocator::tests::a_large_block_is_gone_from_the_process_when_it_is_freed";
            let alone =
                std::process::Command::new(me).args(["--exact", name, "--test-threads=1"]).env(ALONE, "1").output();
            let alone = alone.expect("a process");
            let output = String::from_utf8_lossy(&alone.stdout);
            assert!(alone.status.success() && output.contains("1 passed"), "{output}");
            return;
        }
        // By default, freeing the first large block would let the second, somewhat smaller one stay in the heap.
        give_back_when_freed(64 << 10);
        drop(vec![1_u8; 4 << 20]);
        let block = vec![1_u8; 2 << 20];
        let inside = block.as_ptr() as usize + (1 << 20);
        assert!(is_mapped(inside));
        drop(block);
        assert!(!is_mapped(inside), "it was given back");
    }
}
