import type { ReactNode } from "react";

function Icon({ children, size = 16 }: { children: ReactNode; size?: number }) {
  return (
    <svg
      aria-hidden="true"
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.5"
      strokeLinecap="round"
      strokeLinejoin="round"
    >
      {children}
    </svg>
  );
}

export const CloseIcon = () => (
  <Icon>
    <path d="m4.5 4.5 7 7m0-7-7 7" />
  </Icon>
);

export const SearchIcon = () => (
  <Icon size={14}>
    <circle cx="7" cy="7" r="4.25" />
    <path d="m10.5 10.5 3 3" />
  </Icon>
);

export const SunIcon = () => (
  <Icon>
    <circle cx="8" cy="8" r="2.75" />
    <path d="M8 1.75v1.5m0 9.5v1.5M1.75 8h1.5m9.5 0h1.5M3.6 3.6l1 1m6.8 6.8 1 1m0-8.8-1 1m-6.8 6.8-1 1" />
  </Icon>
);

export const MoonIcon = () => (
  <Icon>
    <path d="M13.5 9.6A5.75 5.75 0 0 1 6.4 2.5a5.75 5.75 0 1 0 7.1 7.1Z" />
  </Icon>
);

export const ExternalIcon = () => (
  <Icon size={11}>
    <path d="M6 3.5H3.5v9h9V10M9 3h4v4m0-4L7.5 8.5" />
  </Icon>
);

export const CheckIcon = () => (
  <Icon size={14}>
    <path d="m3.5 8.5 3 3 6-7" />
  </Icon>
);

export const AlertIcon = () => (
  <Icon size={14}>
    <path d="M8 2.5 14 13H2L8 2.5Zm0 4v3m0 1.75v.1" />
  </Icon>
);

export const ChevronIcon = () => (
  <Icon size={12}>
    <path d="m4 6 4 4 4-4" />
  </Icon>
);
