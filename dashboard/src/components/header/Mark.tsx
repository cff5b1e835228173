/** The mark: three ticks of the tape and the name. */
export function Mark() {
  return (
    <span className="flex select-none items-center gap-2">
      <svg
        aria-hidden="true"
        width="20"
        height="20"
        viewBox="0 0 20 20"
        fill="none"
        strokeLinecap="round"
      >
        <path d="M3 8v6M7.5 6v7" className="stroke-muted" strokeWidth="2.25" />
        <path d="M12 9v7" className="stroke-down" strokeWidth="2.25" />
        <path d="M16.75 3.5v9" className="stroke-up" strokeWidth="2.25" />
      </svg>
      <span className="font-semibold text-[15px] tracking-[-0.02em]">raytape</span>
    </span>
  );
}
