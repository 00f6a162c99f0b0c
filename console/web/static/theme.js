// Runs before anything is drawn: light or dark as the person chose, else as the system has it.
try {
  const theme = localStorage.getItem("plumbob-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // A page from the disk may have no storage: then it is as the system has it.
}
