//! What the lab promises about a disk that runs full.

use std::{fs, io};

use correio_lab::small_disk::SmallDisk;

#[tokio::test]
async fn a_small_disk_runs_full_and_has_room_again() {
    let disk = SmallDisk::of(1024 * 1024).await.expect("a disk");
    let (early, late) = (disk.path().join("early"), disk.path().join("late"));
    fs::write(&early, vec![1; 64 * 1024]).expect("room");
    for _ in 0..2 {
        disk.fill().expect("filled");
        let refused = fs::write(&late, vec![2; 4096]).expect_err("no room");
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull, "{refused}");
        fs::write(&early, vec![3; 64 * 1024]).expect("what is there can be written again");
        disk.free().expect("freed");
        fs::write(&late, vec![2; 512 * 1024]).expect("room again");
        fs::remove_file(&late).expect("removed");
    }
    disk.free().expect("freeing a free disk does no harm");
    let too_large = fs::write(&late, vec![2; 1024 * 1024]).expect_err("it is no larger than it was asked to be");
    assert_eq!(too_large.kind(), io::ErrorKind::StorageFull, "{too_large}");

    let folder = disk.path().parent().expect("a folder").to_owned();
    let held = fs::File::open(&early).expect("open");
    disk.close().await.expect("closed, although a file is open");
    assert!(!folder.exists());
    drop(held);
}
