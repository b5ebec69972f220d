// The kernels enroll themselves; nothing is called from outside.
